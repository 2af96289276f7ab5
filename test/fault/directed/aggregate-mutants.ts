// The protections of the event store, by the mutant that lacks each, and the directed test that must fail then.
import { type Mutant, patch } from "./mutants.ts"

const contract = "contract/event-store.test.ts"
const locks = "integration/postgres/events/locks.test.ts"
const events = "integration/postgres/events/events.test.ts"
const inline = "integration/postgres/events/inline.test.ts"
const unit = "unit/erasure.test.ts"
const erasing = "integration/system/erasure.test.ts"
const sql = (find: string, replace: string) => patch("src/postgres/events/append-sql.ts", find, replace)

/** In the order in which the protocol of aggregates names them. */
export const aggregateMutants: ReadonlyArray<Mutant> = [
  {
    name: "a command id is not unique in its stream",
    patches: patch(
      "migrations/0028_events.sql",
      "create unique index log_batch_command",
      "create index log_batch_command"
    ),
    file: locks,
    title: "one command that two processes send"
  },
  {
    name: "commands that were answered before are appended again",
    patches: [
      ...sql(
        "where (l.topic_id, l.partition, l.command_id, l.entity) = (r.topic_id, r.partition, r.command_id, r.stream) and l.entity is not null\n      limit 1) b",
        "where false and (l.topic_id, l.partition, l.command_id, l.entity) = (r.topic_id, r.partition, r.command_id, r.stream) and l.entity is not null\n      limit 1) b"
      ),
      ...patch("migrations/0028_events.sql", "create unique index log_batch_command", "create index log_batch_command")
    ],
    file: locks,
    title: "one command that two processes send"
  },
  {
    name: "the expectation is not checked under the lock",
    patches: sql("(excluded.asked in (-1, s.version) or", "(excluded.asked >= -1 or"),
    file: locks,
    title: "a conflict that is found under the lock"
  },
  {
    name: "positions do not advance within a batch",
    patches: sql(
      "p.next_position - o.total + o.before, p.next_position - o.total + o.before + ${r}.n",
      "p.next_position - o.total, p.next_position - o.total + ${r}.n"
    ),
    file: events,
    title: "many appends to streams of their own"
  },
  {
    name: "event streams are locked in the order in which an append names them",
    patches: sql('from ${source} order by topic_id, stream collate "C"\n', "from ${source} order by i\n"),
    file: locks,
    title: "lock them in one order"
  },
  {
    name: "a command that was answered without events is appended",
    patches: sql(" when h.remembered > 0 then millrace.is_unanswered(r.topic_id, r.stream, r.command_id)", ""),
    file: contract,
    title: "the answer of a command without events is remembered"
  },
  {
    name: "a command passes whatever it follows",
    patches: patch(
      "src/postgres/events/passing.ts",
      "const isNext = follows === null || follows === last.get(key)",
      "const isNext = true || follows === last.get(key)"
    ),
    file: contract,
    title: "a command that was decided on another's events"
  },
  {
    name: "an append without segments passes where relays publish",
    patches: sql("` when p.published then ${judge}`", '""'),
    file: events,
    title: "what relays publish is one segment"
  },
  {
    name: "a closed stream takes events",
    patches: sql("const passes = `s.closed is null and (", "const passes = `("),
    file: contract,
    title: "an archived stream takes no more events"
  },
  {
    name: "a boundary's versions are read after its events",
    patches: patch(
      "src/postgres/events/reads.ts",
      '    const batches = rows.filter(({ kind }) => kind === "batch")\n',
      `    const batches = rows.filter(({ kind }) => kind === "batch")
    const later = yield* run("read", aggregate, () =>
      sql.unsafe<Array<BoundaryRow>>(boundaryStatement, [topicId, arrayOf([...wanted])], { prepare: true })
    )
    rows.splice(0, rows.length, ...later.filter(({ kind }) => kind === "tag"))
`
    ),
    file: locks,
    title: "a boundary is not newer than the events"
  },
  {
    name: "tags of the condition alone are not locked",
    patches: sql(
      "    where exists (select from fresh) and (select count(*) from head) >= 0 order by topic_id, tag",
      "    where added > 0 and exists (select from fresh) and (select count(*) from head) >= 0 order by topic_id, tag"
    ),
    file: locks,
    title: "a tag that a boundary only reads"
  },
  {
    name: "tags are checked by the snapshot",
    patches: sql(
      "version = case when coalesce(excluded.asked, t.version) = t.version then",
      "version = case when excluded.asked is null or excluded.asked = (select e.version from millrace.event_tag e where (e.topic_id, e.tag) = (t.topic_id, t.tag)) then"
    ),
    file: locks,
    title: "a tag that a boundary only reads"
  },
  {
    name: "a conflict says the version of the snapshot",
    patches: [
      ...sql(
        "coalesce(h.version, b.version, k.version) as actual",
        "coalesce(k.version, h.version, b.version) as actual"
      ),
      ...sql(
        "select f.i, h.version as actual, h.closed from head h join fresh f using (topic_id, stream) where",
        "select f.i, coalesce(k.version, 0) as actual, h.closed from head h join fresh f using (topic_id, stream) left join known k using (i) where"
      )
    ],
    file: locks,
    title: "a conflict that is found under the lock"
  },
  {
    name: "a refusal commits",
    patches: sql(
      "    where exists (select from missed) or (exists (select from head) and not exists (select from head where ok)))`",
      "    where exists (select from missed))`"
    ),
    file: locks,
    title: "a refused append leaves no row"
  },
  {
    name: "a load takes the snapshot of any shape",
    patches: patch(
      "src/postgres/events/read-sql.ts",
      "stream = $3::text and shape = $4::text and version",
      "stream = $3::text and $4::text is not null and version"
    ),
    file: contract,
    title: "a load returns the snapshot of its shape"
  },
  {
    name: "an older snapshot replaces a newer one",
    patches: patch("src/postgres/events/events.ts", "\n            where excluded.version > s.version`", "`"),
    file: contract,
    title: "a load returns the snapshot of its shape"
  },
  {
    name: "a snapshot does not name the subjects that its state is about",
    patches: patch("src/aggregate/chain.ts", "subjects: [...subjects], personal }", "subjects: [], personal }"),
    file: "integration/system/erasure.test.ts",
    title: "is sealed in the log"
  },
  {
    name: "a snapshot that was folded before an erasure is stored after it",
    patches: patch(
      "src/postgres/events/events.ts",
      "          where not exists (\n",
      "          where true or not exists (\n"
    ),
    file: locks,
    title: "a snapshot that waits for an erasure"
  },
  {
    name: "inline rows are written for repeated commands",
    patches: sql(
      "or exists (select from astray)\n      or exists (select from done))`",
      "or exists (select from astray))`"
    ),
    file: inline,
    title: "a repeated command writes no rows again"
  },
  {
    name: "inline rows are written for commands that follow what is not there",
    patches: sql("exists (select from behind) or exists (select from astray)\n", "exists (select from behind)\n"),
    file: inline,
    title: "a command that follows one which is not there"
  },
  {
    name: "outbox segments are of what was asked for",
    patches: sql(
      "join req r using (i) cross join lateral (\n      select string_agg(piece",
      "join req r on r.partition = o.partition and r.topic_id = o.topic_id cross join lateral (\n      select string_agg(piece"
    ),
    file: events,
    title: "what relays publish is one segment"
  },
  {
    name: "a chain is split over statements that run at once",
    patches: patch(
      "src/postgres/events/lanes.ts",
      "    const lane = command.row.partition % laneCount\n",
      "    const lane = this.waiting() % laneCount\n"
    ),
    file: "unit/postgres/event-lanes.test.ts",
    title: "few commands share the statement of two lanes"
  },
  {
    name: "commands overtake one of their stream that has to wait",
    patches: patch("src/postgres/events/lanes.ts", 'last.set(key, "waits")\n', ""),
    file: contract,
    title: "appends of one stream with different expectations"
  },
  {
    name: "a load has no limit",
    patches: patch("src/postgres/events/read-sql.ts", "      order by first_version limit ${rows}) c\n", "      ) c\n"),
    file: locks,
    title: "a load reads few pages"
  },
  {
    name: "a key is not locked by an append",
    patches: sql("order by k.subject, k.number for share)", "order by k.subject, k.number)"),
    file: locks,
    title: "an append that waits for an erasure"
  },
  {
    name: "a key is asked by the snapshot",
    patches: [
      ...sql(" and k.key is not null order by k.subject", " order by k.subject"),
      ...sql(
        "from sealed_by q where not exists (select from alive a where (a.subject, a.number) = (q.subject, q.number)) having",
        "from sealed_by q where (select count(*) from alive) >= 0 and not exists (select from millrace.subject_key a where (a.subject, a.number) = (q.subject, q.number) and a.key is not null) having"
      )
    ],
    file: locks,
    title: "an append that waits for an erasure"
  },
  {
    name: "the event that a sealed text belongs to is not authenticated",
    patches: [
      ...patch("src/erasure/sealed.ts", "key, nonce)\n  cipher.setAAD(aad)\n", "key, nonce)\n"),
      ...patch("src/erasure/sealed.ts", "  decipher.setAAD(aad)\n", "")
    ],
    file: unit,
    title: "does not open under another aggregate"
  },
  {
    name: "a nonce is reused",
    patches: patch(
      "src/erasure/sealed.ts",
      "const nonce = randomBytes(nonceBytes)",
      "const nonce = Buffer.alloc(nonceBytes)"
    ),
    file: unit,
    title: "keeps its other fields readable"
  },
  {
    name: "the number of partitions of an aggregate can be changed",
    patches: patch(
      "src/postgres/log/topics.ts",
      "where t.partitions = excluded.partitions and t.compacted",
      "where t.compacted"
    ),
    file: events,
    title: "the topic of an aggregate refuses records from outside"
  },
  {
    name: "other processes are not notified of an erasure",
    patches: patch(
      "src/postgres/store/subject-keys.ts",
      "told as (select pg_notify(${erasureChannel}, ${subject}))",
      "told as (select ${erasureChannel}::text, ${subject}::text)"
    ),
    file: erasing,
    title: "is sealed in the log"
  },
  {
    name: "a start does not look whether keys can be decrypted",
    patches: patch("src/system/system.ts", "  yield* subjectKeys.assertReadable\n", ""),
    file: erasing,
    title: "is not read by a system"
  },
  {
    name: "a decoder quotes what was encrypted",
    patches: patch(
      "src/runner/event-decoder.ts",
      "throw unreadablePersonal(error, type, schemaVersion, this.source.eventTypes)",
      "throw error"
    ),
    file: unit,
    title: "names the field that does not fit the schema"
  },
  {
    name: "the path of a field has a key that no schema declares",
    patches: patch("src/erasure/unreadable.ts", 'names.has(key as PropertyKey) ? String(key) : "*"', "String(key)"),
    file: unit,
    title: "is named by the path of the field"
  },
  {
    name: "programs beside the system are not among those that take commands",
    patches: patch("src/system/inline-code.ts", '["gateway", besideRole]', '["gateway"]'),
    file: "integration/system/inline-versions.test.ts",
    title: "a program beside the system"
  },
  {
    name: "snapshots have personal data in plain text",
    patches: patch(
      "src/aggregate/sealing-store.ts",
      "if (!personal || subjects.length === 0)",
      "if (personal || subjects.length === 0)"
    ),
    file: erasing,
    title: "is sealed in the log"
  }
]
