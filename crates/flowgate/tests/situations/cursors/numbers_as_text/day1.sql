create table t(id integer primary key, name text, changed text);
insert into t values(1,'one','8'),(2,'two','9'),(4,'four','10');
