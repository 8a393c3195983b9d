update t set name='two changed', changed='11' where id=2;
insert into t values(3,'three','12');
