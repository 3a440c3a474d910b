-- Publications beside ours, column lists and filters of others, drops of everything that rows were sent of.

create publication of_another for table t; alter publication of_another set (publish = 'insert'); alter publication of_another add table logged; drop publication of_another

-- since 15
create publication filtered for table t (id, v) where (id > 10); create publication whole for tables in schema public; insert into t values (20001, 'x'); drop publication filtered, whole

begin; insert into made (id, m) values (100, 'glad'); insert into scalars (id, n) values (100, 1.50); drop table made; drop type mood cascade; drop type pair cascade; drop type span cascade; commit

begin; create table gone (id int primary key); insert into gone values (1); drop table gone; commit

begin; create schema brief; create type brief.kind as enum ('k'); create table brief.gone (id int primary key, k brief.kind); insert into brief.gone values (1, 'k'); drop schema brief cascade; commit

create schema brief; create domain brief.dom as numeric(5, 2); create table brief.kept (id int primary key, d brief.dom); insert into brief.kept values (1, 1.5); alter schema brief rename to long; insert into long.kept values (2, 2.5); drop schema long cascade

do $$ begin for n in 1..60 loop execute format('create table many_%s (id int primary key, v text)', n); execute format('insert into many_%s values (1, %L)', n, n); end loop;
for n in 1..60 loop execute format('drop table many_%s', n); end loop; end $$

create table the_end (id int primary key); insert into the_end values (1)
