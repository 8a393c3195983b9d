update t set name='two changed', changed=7 where id=2;
insert into t values(3,'three',8),(4,'four','2024-01-02');
