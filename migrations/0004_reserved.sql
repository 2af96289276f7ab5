-- Holds the number of a migration that lands from elsewhere; it changes nothing.
select 1;
