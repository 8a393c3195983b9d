update t set name = 'one changed', changed = 11 where id = 1;
insert into t values (3, 'three', 100);
