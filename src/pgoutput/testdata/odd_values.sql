-- What odd_values.hex was recorded from (server 15, a fresh cluster with wal_level = logical).
set datestyle=ISO; set intervalstyle=iso_8601; set bytea_output=hex; set extra_float_digits=3; set timezone=UTC; set client_encoding=UTF8;
create type mood as enum ('sad','ok, fine');
create type pair as (a int, b text);
create domain cents as int8;
create domain tags as text[];
create table odd (
 id int primary key, b bool, i2 int2, i8 int8, o oid, f4 float4, f8 float8, n numeric, j json, jb jsonb,
 ts timestamp, tz timestamptz, d date, t time, iv interval, by bytea, c char(6), m mood, p pair, u uuid, net inet, r int4range, money money, x xml, pt point,
 dom cents, ai int[], at text[], ab bytea[], aj jsonb[], am mood[], ax box[], atz timestamptz[], adom tags, abool bool[], f8s float8[]);
create table big (id int primary key, note text, n int);
create table whole (id int, note text, n int);
create table gone (id int);
alter table big alter note set storage external;
alter table whole alter note set storage external;
alter table whole replica identity full;
create publication p for table odd, big, whole, gone;
select pg_create_logical_replication_slot('odd','pgoutput');
begin;
insert into odd values (1,true,-32768,9223372036854775807,4294967295,'1.1','1e300','1.10','{"a": 1, "a": 2, "s": "\ud800", "z": "\u0000", "big": 1e400}','{"b": 123456789012345678901234567890.10}',
 '2026-11-21 20:21:29.123456','2026-11-21 20:21:29.1+00','2026-11-21','24:00:00','1 year 2 mons -3 days 04:05:06.7','\x00ff10','ab','ok, fine','(1,"x ""y""")','a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11','10.0.0.0/8','[1,5)','-12.34','<a b="1">é</a>','(1.5,-2)',
 1999,'[0:1]={7,8}','{{NULL,"NULL"},{"a\"b\\c","x,y {}"}}',array['\x00'::bytea,'\xdeadbeef',null],array['{"k": [1, null]}'::jsonb,'"s"'],'{sad,"ok, fine",NULL}','{(1,1),(0,0);(2,2),(1,1)}','{"2026-01-01 00:00:00+02",infinity}','{x,""}','{t,f,NULL}','{1e-5,NaN,-Infinity,-0}');
insert into odd (id,f4,f8,n,ts,tz,d,iv,ai,at,j) values (2,'NaN','-Infinity','NaN','infinity','-infinity','0044-03-15 BC','0','{}','{}',' [ 1 , 2 ] ');
insert into odd (id,f8,n,ts,tz,d,ai,at,jb) values (3,'-0','Infinity','0044-03-15 12:00:00 BC','294276-12-31 23:59:59.999999+00','infinity','{{{1,2},{3,4}},{{5,6},{7,8}}}',E'{"line\nbreak\ttab",é,🦀,"null"}','"\u2028\u001f"');
insert into odd (id,f8,n,ts,tz) values (4,'0.1','100000000000000000000','0001-01-01 00:00:00','0001-01-01 00:00:00+00');
commit;
insert into big values (1, repeat('x', 2100), 1);
update big set n = 2;
update big set id = 5;
delete from big;
insert into whole values (1, repeat('y', 2100), 1);
update whole set n = 2;
delete from whole;
insert into gone values (1);
truncate gone, big cascade;
truncate gone restart identity;
begin; select pg_replication_origin_create('far'); select pg_replication_origin_session_setup('far'); select pg_replication_origin_xact_setup('0/ABCDEF','2026-01-01'); insert into gone values (2); commit;
select pg_replication_origin_session_reset();
select pg_logical_emit_message(false,'walhook','outside');
begin; select pg_logical_emit_message(true,'walhook','inside'); commit;

-- The recording, by psql -qAt, one payload a line:
set datestyle=ISO; set intervalstyle=iso_8601; set bytea_output=hex; set extra_float_digits=3; set timezone=UTC;
select encode(data,'hex') from pg_logical_slot_peek_binary_changes('odd',null,null,'proto_version','1','publication_names','p','messages','true');
