create table t(id integer primary key, name text, changed integer);
insert into t values(1,'one',1),(2,'two',2);
