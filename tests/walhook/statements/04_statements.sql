-- Every kind of statement that writes, and transactions of every shape.

create table t (id int primary key, v text, n int); insert into t values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)

insert into t values (1, 'x') on conflict (id) do update set v = excluded.v, n = t.n + 1; insert into t values (1) on conflict do nothing

with gone as (delete from t where id = 3 returning *), back as (insert into t select id + 10, v, n from gone returning id) update t set n = 9 where id = 2

-- since 15
merge into t using (values (1, 'm'), (50, 'new'), (2, 'del')) s (id, v) on t.id = s.id when matched and s.v = 'del' then delete
    when matched then update set v = s.v when not matched then insert values (s.id, s.v)

update t set id = id + 1000; update t set v = v; delete from t where false; delete from t using (values (1001)) s (i) where id = s.i

truncate t; truncate t restart identity cascade; insert into t select n, 'many', n from generate_series(1, 500) n

begin; savepoint a; insert into t values (1001); rollback to a; insert into t values (1002); savepoint b; insert into t values (1003); release b; commit

begin; insert into t values (1004); rollback

begin; insert into t values (1005); savepoint a; update t set v = 'deep'; rollback to a; delete from t where id between 10 and 20; savepoint b; savepoint c; insert into t values (1006); rollback to b; commit

do $$ begin for i in 2000..2030 loop begin insert into t values (i); if i % 2 = 0 then raise exception 'no'; end if; exception when others then null; end; end loop; end $$

do $$ begin for i in 3000..3010 loop insert into t values (i); if i % 3 = 0 then rollback; else commit; end if; end loop; end $$

begin; insert into t values (4000); prepare transaction 'one'

commit prepared 'one'

begin; insert into t values (4001); prepare transaction 'two'

rollback prepared 'two'

begin; create table in_two_phases (id int primary key); insert into in_two_phases values (1); truncate t; insert into t values (1); prepare transaction 'three'

insert into "Odd ""Schema""".plainer (a) values (999)

commit prepared 'three'

begin isolation level serializable; insert into t values (5000); commit

begin; declare c cursor for select id from t order by id for update; fetch 1 from c; update t set v = 'current' where current of c; delete from t where current of c; commit

prepare p (int) as insert into t values ($1); execute p (5001); execute p (5002); deallocate p

create table logged (n serial primary key, what text); create function log_it() returns trigger language plpgsql as $$
begin insert into logged (what) values (tg_op); return coalesce(new, old); end $$;
create trigger before_it before insert or update or delete on t for each row execute function log_it();
insert into t values (6000); update t set v = 'w' where id = 6000; delete from t where id = 6000

create view seen as select id, v from t where id < 10000 with check option; insert into seen values (7000, 'by a view'); update seen set v = 'again' where id = 7000; delete from seen where id = 7000

create view odd as select id, v || '!' as w from t; create function by_view() returns trigger language plpgsql as $$
begin insert into t values (new.id, new.w); return new; end $$; create trigger instead instead of insert on odd for each row execute function by_view(); insert into odd values (7100, 'instead')

create table ruled (id int primary key); create rule also as on insert to ruled do also insert into logged (what) values ('rule'); insert into ruled values (1), (2);
create rule instead as on delete to ruled do instead nothing; delete from ruled; create rule other as on update to ruled do instead update t set v = 'by a rule' where id = new.id; update ruled set id = 7100

create materialized view summed as select count(*) from t; refresh materialized view summed; create unique index on summed (count); refresh materialized view concurrently summed; refresh materialized view summed

select lo_from_bytea(0, 'large'), lo_create(0); select lo_unlink(oid) from pg_largeobject_metadata

select pg_logical_emit_message(true, 'other', 'transactional'); select pg_logical_emit_message(false, 'other', 'not'); select pg_logical_emit_message(true, 'walhook:', 'no json')

begin; select pg_logical_emit_message(false, 'other', 'outside'); select pg_logical_emit_message(true, 'other', 'inside'); insert into t values (8000); rollback

create sequence s; select nextval('s'), setval('s', 100); alter sequence s restart; drop sequence s

create role somebody; grant select on t to somebody; revoke all on t from somebody; reassign owned by somebody to postgres; drop owned by somebody; drop role somebody

create table secured (id int primary key); alter table secured enable row level security; create policy p on secured using (id > 0); alter table secured force row level security; insert into secured values (1); update secured set id = 2

set session_replication_role = replica; insert into t values (9000); set session_replication_role = origin

select pg_replication_origin_create('far'); select pg_replication_origin_session_setup('far'); insert into t values (9001); begin; select pg_replication_origin_xact_setup('0/1234', now()); insert into t values (9002); commit; select pg_replication_origin_session_reset()

set synchronous_commit = off; insert into t values (9003); set datestyle = 'SQL, DMY'; set intervalstyle = sql_standard; set timezone = 'Asia/Kathmandu'; set extra_float_digits = -10; set bytea_output = escape; insert into scalars (id, d, tz, iv, f8, by) values (99, now(), now(), '1-2', 1.0 / 3, '\x00ff')

set client_encoding = latin1; insert into t values (9004, convert_from('\xe9', 'latin1'))

listen x; notify x, 'payload'; unlisten *; explain (analyze) insert into t values (9005); load 'plpgsql'

discard all

vacuum t

vacuum full

analyze t

create index concurrently t_v on t (v)

reindex index concurrently t_v

drop index concurrently t_v

create statistics st on v, n from t; alter statistics st set statistics 10; drop statistics st

create aggregate total (int) (sfunc = int4pl, stype = int); create operator === (leftarg = int, rightarg = int, function = int4eq); create cast (text as mood) with inout; create collation c2 from "C"; create text search configuration tc (copy = simple)

create foreign data wrapper w; create server far foreign data wrapper w; create foreign table ft (id int) server far; drop server far cascade

-- fails
insert into nowhere values (1)

-- fails
insert into t values (1, repeat('x', 10)), (1, 'twice')

create table as_new (id int primary key, v text) using heap; insert into as_new values (1, ''); alter table as_new cluster on as_new_pkey; drop table as_new; create table as_new (v text, id int, primary key (id)); insert into as_new values ('again', 1); update as_new set id = 2; truncate as_new
