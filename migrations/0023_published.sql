-- How many messages the handlers of a build have published, or would have while it followed, by topic, so that builds can be compared. Null for
-- builds that began before they were counted.
alter table millrace.progress add column published jsonb;
alter table millrace.progress alter column published set default '{}';
