create table t(id integer primary key, name text, changed text);
insert into t values(1,'one','28/02/2024'),(2,'two','15/01/2024');
