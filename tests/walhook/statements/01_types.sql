-- Every built-in type, with ordinary and odd values; a table of each kind of type besides.

create table scalars (
    id int primary key, b bool, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric, n2 numeric(12, 3), m money,
    t text, v varchar(10), c char(6), c1 "char", nm name, by bytea, d date, ti time, tt timetz, ts timestamp,
    tz timestamptz, iv interval, u uuid, j json, jb jsonb, jp jsonpath, x xml, bi bit(5), bv varbit, ip inet, ci cidr,
    mac macaddr, mac8 macaddr8, p point, l line, ls lseg, bx box, pa path, po polygon, ci2 circle, tv tsvector,
    tq tsquery, o oid, rc regclass, rt regtype, rp regproc, rpd regprocedure, rn regnamespace, rr regrole, ro regoper,
    rcf regconfig, ln pg_lsn, sn pg_snapshot, x8 xid8, xx xid, cc cid, td tid, i2v int2vector, ov oidvector,
    r4 int4range, r8 int8range, rnum numrange, rd daterange, rts tsrange, rtz tstzrange,
    m4 int4multirange, mnum nummultirange, mtz tstzmultirange)

insert into scalars values (
    1, true, -32768, -2147483648, -9223372036854775808, '-infinity', 'nan', 'NaN', 1.100, '-$92,233,720.12',
    E'tab\t quote" back\\ nul-free \u00e9\U0001f600', '0123456789', 'ab', 'x', 'a name', '\x00ff', '4713-01-01 BC', '24:00:00',
    '12:00:00.123456+15:59', '294276-12-31 23:59:59.999999', '4714-11-24 00:00:00+00 BC', '-178000000 years',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a":"\ud800", "b": "\u0000", "a": 1e400}', '{"big": 1e1000, "dup": 1, "dup": 2}',
    '$.a[*] ? (@ > 1)', '<a b="c">&lt;</a>', '10101', '', '::ffff:1.2.3.4/128', '10.0.0.0/8', '08:00:2b:01:02:03',
    '08:00:2b:01:02:03:04:05', '(nan,-infinity)', '{1,2,3}', '[(0,0),(1,1)]', '((0,0),(1,1))', '[(0,0),(1,1)]',
    '((0,0),(1,1),(1,0))', '<(0,0),1>', '''a b'':1A,2B c', '''a'' & !''b'' <2> c:*', 4294967295, 'pg_class', 'int4[]',
    'now', 'abs(int4)', 'pg_catalog', 'postgres', 'pg_catalog.||/', 'simple', 'FFFFFFFF/FFFFFFFF', '10:20:10,14,15',
    '18446744073709551615', '4294967295', '7', '(4294967295,65535)', '1 2 3', '1 2 3',
    '(,)', 'empty', '[-1.5,1e100)', '[infinity,infinity]', '[-infinity,infinity]', '["2000-01-01 00:00:00+05:30:15",)',
    '{}', '{[1,2),(3,4]}', '{(,)}')

insert into scalars (id, f4, f8, n, ts, tz, d, iv) values
    (2, 'infinity', '-infinity', 1e-16383, 'infinity', '-infinity', 'infinity', '1 mon -1 day 00:00:00.000001'),
    (3, 1e-45, 5e-324, -0.0, '-infinity', 'infinity', '-infinity', '0'),
    (4, -0.0, 1.7976931348623157e308, 1e131071, 'epoch', 'epoch', 'epoch', '2000000000:00:54.775807')

-- since 15
insert into scalars (id, n) values (5, 'infinity'), (6, '-infinity')

update scalars set t = repeat('x', 100000), by = decode(repeat('00ff', 50000), 'hex') where id = 1

update scalars set i4 = 0 where id = 1

update scalars set id = 10, b = null where id = 1

delete from scalars where id > 1

create table arrays (id int primary key, i int[], t text[], n numeric[], j jsonb[], b bytea[], tz timestamptz[], r int4range[],
    p point[], bx box[], u uuid[], e name[])

insert into arrays values
    (1, '{}', '{NULL,"NULL","",a,"b,c","d\"e","{"}', '{NaN,1.10}', '{"{\"a\": [1]}",null}', '{"\\x00"}', '{infinity}', '{"[1,2)",empty}',
     '{"(1,2)"}', '{(1,1),(0,0);(2,2),(1,1)}', '{}', '{a,b}'),
    (2, '[0:1]={7,8}', '{{a,b},{c,NULL}}', '{{{1}}}', null, '{}', '{{"0044-03-15 00:00:00+00 BC"}}', '{}', null, null, null, null),
    (3, '[-2:-1][2:3]={{1,2},{3,4}}', '{{{{{{x}}}}}}', null, null, null, null, null, null, null, null, null)

create type mood as enum ('sad', 'it''s "ok", fine', 'glad');
create type pair as (a int, b text);
create type nested as (p pair, ps pair[], m mood);
create domain positive as int check (value > 0);
create domain positives as positive[] check (array_length(value, 1) < 5);
create domain pairs as pair check ((value).a > 0);
create type span as range (subtype = float8, subtype_diff = float8mi);
create table made (id int primary key, m mood, ms mood[], p pair, n nested, d positive, ds positives, dp pairs, s span,
    sm span_multirange, dd positive[])

insert into made values
    (1, 'it''s "ok", fine', '{sad,"it''s \"ok\", fine"}', '(1,"a ""quoted"", text")', '("(1,b)","{""(2,c)""}",glad)', 5, '{1,2}', '(1,)',
     '[1.5,2)', '{[1,2),[3,4)}', '{1}'),
    (2, null, '{}', '(,)', '(,,)', null, null, null, 'empty', '{}', '{}')

alter type mood add value 'between' before 'glad'

insert into made (id, m) values (3, 'between')

alter type mood rename value 'sad' to 'blue'

update made set m = 'blue' where id = 3

alter type pair add attribute c date cascade

insert into made (id, p) values (4, '(1,x,2000-01-01)')

create type width; create function width_in(cstring) returns width language internal immutable strict as 'int8in';
create function width_out(width) returns cstring language internal immutable strict as 'int8out';
create type width (input = width_in, output = width_out, like = int8);
create table widths (id int primary key, w width, ws width[]); insert into widths values (1, '5', '{6,7}')

drop table widths; drop type width cascade

-- needs hstore
create extension hstore; create table h (id int primary key, h hstore, hs hstore[]); insert into h values (1, 'a=>1,"b c"=>NULL', '{"a=>1"}')

-- needs citext
create extension citext; create table ct (id citext primary key, other citext[]); insert into ct values ('Ab', '{Cd}'); update ct set id = 'aB'

-- needs ltree
create extension ltree; create table lt (id ltree primary key, q lquery, l ltree[]); insert into lt values ('a.b.c', '*.b.*', '{x.y}')

-- needs cube
create extension cube; create table cu (id int primary key, c cube); insert into cu values (1, '(1,2),(3,4)')

-- needs isn
create extension isn; create table books (id isbn primary key); insert into books values ('978-0-393-04002-9')

-- needs seg
create extension seg; create table se (id int primary key, s seg); insert into se values (1, '5(+-)0.3')

-- needs intarray
create extension intarray; create table ia (id int primary key, q query_int); insert into ia values (1, '1&2')
