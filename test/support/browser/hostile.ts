// An application whose events, rows, errors and streams may have any text in every field.
import { Schedule, Schema } from "effect"
import { Agg, Aggregate, Application, Column, Event, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"

const Noted = Event.make("noted", {
  id: Schema.String,
  subject: Schema.String,
  tenant: Schema.String,
  text: Schema.String,
  size: Schema.Finite,
  at: Schema.Int,
  fails: Schema.Boolean,
  detail: Schema.optionalKey(Schema.Unknown)
})
export const notes = Topic.events("notes.v1", {
  events: [Noted],
  id: "id",
  key: "subject",
  eventTime: "at",
  tenant: "tenant",
  partitions: 2
})
export const echoes = Topic.records("echoes.v1", {
  value: { id: Schema.String, subject: Schema.String, text: Schema.String },
  key: "subject",
  id: "id",
  partitions: 2
})
export const kept = ReadModel.table("kept_notes", {
  columns: {
    subject: Schema.String,
    id: Schema.String,
    tenant: Schema.String,
    text: Schema.String,
    size: Schema.Finite,
    at: Column.timestamptz,
    detail: Schema.Unknown
  },
  primaryKey: ["subject", "id"]
})
export const hourly = Window.tumbling("notes_by_hour", {
  size: "1 hour",
  key: { tenant: Schema.String, subject: Schema.String },
  aggregate: { notes: Agg.count, size: Agg.sum }
})
/** Throws the text of an event that asks for it. */
export const keeper = Projection.make({
  name: "keeper",
  version: 1,
  source: notes,
  writes: [kept, hourly, echoes],
  failure: { retry: Schedule.recurs(0), then: "park" },
  handle: ({ at, detail, fails, id, size, subject, tenant, text }, out) => {
    if (fails) {
      const error = new Error(text)
      error.name = text.slice(0, 200)
      throw error
    }
    out.upsert(kept, { subject, id, tenant, text, size, at, detail: detail ?? null })
    out.add(hourly, { tenant, subject, notes: 1, size })
    out.publish(echoes, { id, subject, text })
  }
})

const Written = Event.make("written", { page: Schema.String, text: Schema.String })
/** Refuses an empty text, with the texts of the command. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", { page: Schema.String, reason: Schema.String }) {}
export const page = Aggregate.make({
  name: "page",
  id: "page",
  events: [Written],
  commands: { write: { page: Schema.String, text: Schema.String, isFine: Schema.Boolean } },
  state: Schema.Struct({ text: Schema.String, count: Schema.Finite }),
  initial: { text: "", count: 0 },
  evolve: { written: ({ count }, { text }) => ({ text, count: count + 1 }) },
  decide: {
    write: (_, { isFine, page: id, text }) =>
      isFine ? Written.make({ page: id, text }) : new Refused({ page: id, reason: text })
  }
})
export const pages = ReadModel.table("pages", {
  columns: { page: Schema.String, text: Schema.String },
  primaryKey: ["page"]
})
export const shelf = Projection.make({
  name: "shelf",
  version: 1,
  source: page,
  writes: [pages],
  handle: { written: ({ page: id, text }, out) => out.upsert(pages, { page: id, text }) }
})

export default Application.make({
  name: "hostile",
  aggregates: [page],
  projections: [Projection.async(keeper), Projection.inline(shelf)]
})

/** Texts that a page must show as what they are. Each has the word `mark`, by which tests find it. */
export const hostileTexts = {
  markup: `mark <img src=x onerror="taken()"><script>taken()</script><svg onload=taken()>&lt;b&gt;`,
  link: `mark javascript:taken() <a href="javascript:taken()">click</a> [x](javascript:taken())`,
  terminal: `mark \u001b[31mred\u001b]8;;http://evil.example\u0007link\u001b]8;;\u0007\u0008\u007f\u009b31m`,
  order: `mark \u202egnp.exe\u202c \u2066isolated\u2069 \u200bempty\ufeff \u{e0041}tag`,
  emoji: `mark 👨‍👩‍👧‍👦 🏳️‍🌈 é́́́́ مرحبا 你好`,
  long: `mark${"w".repeat(5_000)}`,
  quotes: `mark '; drop table x; -- " \` $(taken) \${taken} %00 \\ / ? # & = + %2e%2e%2f`,
  template: "mark {{constructor.constructor('taken()')()}} ${taken()} <%= taken() %> __proto__ constructor"
} as const
