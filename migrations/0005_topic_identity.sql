-- Which topic a position is of, as the log tells topics of one name apart: one that was deleted and made anew is not taken for the old one.
alter table millrace.progress add column topic_identity text;
