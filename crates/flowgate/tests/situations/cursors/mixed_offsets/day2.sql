update t set name='two changed', changed='2024-03-31T02:50:00+01:00' where id=2;
insert into t values(3,'three','2024-03-31T02:55:00+01:00');
