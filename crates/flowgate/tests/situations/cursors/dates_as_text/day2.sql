update t set name='two changed', changed='01/03/2024' where id=2;
insert into t values(3,'three','02/03/2024');
