//! Vocabulary and contracts of Flowgate: no I/O, no clock, no runtime.
