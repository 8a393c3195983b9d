create table t(id integer primary key, name text, changed text);
insert into t values(1,'one','2024-03-31T01:30:00+01:00'),(2,'two','2024-03-31T03:10:00+02:00');
