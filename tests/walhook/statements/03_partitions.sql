-- Partitions: each way to split, attached, detached, rows that move, leaves that are written to directly.

create table ranges (id int, at date, note text, primary key (id, at)) partition by range (at);
create table ranges_2020 partition of ranges for values from ('2020-01-01') to ('2021-01-01');
create table ranges_2021 partition of ranges for values from ('2021-01-01') to ('2022-01-01');
create table ranges_rest partition of ranges default;
insert into ranges select n, date '2020-06-01' + n * 60, 'n' from generate_series(1, 20) n

update ranges set at = at + 365 where id < 5

insert into ranges_2020 values (100, '2020-02-02', 'into the leaf'); delete from ranges where id = 6

create table ranges_2019 (note text, at date not null, id int not null, extra int);
alter table ranges_2019 drop column extra; alter table ranges_2019 add primary key (id, at);
insert into ranges_2019 (id, at) values (1, '2019-05-05'); alter table ranges attach partition ranges_2019 for values from ('2019-01-01') to ('2020-01-01');
insert into ranges values (2, '2019-06-06', 'other order of columns'); update ranges set note = 'u' where at < '2020-01-01'

alter table ranges detach partition ranges_2019; update ranges_2019 set note = 'alone'

create table lists (k text, v int, primary key (k, v)) partition by list (k);
create table lists_a partition of lists for values in ('a', 'b') partition by hash (v);
create table lists_a0 partition of lists_a for values with (modulus 2, remainder 0);
create table lists_a1 partition of lists_a for values with (modulus 2, remainder 1);
create table lists_z partition of lists for values in ('z');
insert into lists select 'a', n from generate_series(1, 10) n; update lists set k = 'z' where v = 3; update lists set v = v + 100 where k = 'a'

truncate lists_z; truncate lists; insert into lists values ('z', 1); truncate lists, ranges

alter table ranges add column more int default 5; insert into ranges values (7, '2020-07-07', 'n', 6); drop table ranges_2021; insert into ranges values (8, '2021-07-07')

create table moved (id int primary key) partition by range (id); create table moved_1 partition of moved for values from (0) to (10);
insert into moved values (1); alter table moved rename to moved_on; insert into moved_on values (2); drop table moved_on
