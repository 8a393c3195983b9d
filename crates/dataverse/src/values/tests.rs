//! Every SQL type into every kind of column, and the faults in between.
