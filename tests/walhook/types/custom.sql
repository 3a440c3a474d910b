-- Types of a database's own, and what values of the system's types refer to.
create table public.kept (id int default 3, twin int);
create table public."Käse ""und"" Brot" ();
insert into public.kept select i / 10, i / 10 from generate_series(1, 100) i;
create statistics public.kept_stat (ndistinct, dependencies, mcv) on id, twin from public.kept;
analyze public.kept;

create type public.mood as enum ('sad', 'ok, "fine" {x}', '', 'NULL', '🦀');
-- Named like a type of the system.
create schema "_Sad Types";
create type "_Sad Types".int4 as enum ('one');
create type public.pair as (a int, b text);
create type public.nested as (p public.pair, moods public.mood[], j jsonb);
create domain public.cents as int8 check (value > -10);
create domain public.cents_or_null as public.cents;
create domain public.tags as text[];
create domain public.document as json;
create type public.floatrange as range (subtype = float8, multirange_type_name = floatmultirange);

-- As the geographical extension defines it: its arrays have a colon between elements.
create type public.geometry;
create function public.geometry_in(cstring) returns public.geometry language internal immutable strict as 'textin';
create function public.geometry_out(public.geometry) returns cstring language internal immutable strict as 'textout';
create type public.geometry (input = public.geometry_in, output = public.geometry_out, like = text, delimiter = ':');
