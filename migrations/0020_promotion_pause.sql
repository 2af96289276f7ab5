-- For how long a promotion kept its projection from processing, in milliseconds; null if the process that promoted ended before it could store it.
alter table millrace.promotion add column pause_ms double precision;
