// A library with branches: where each book is, and how many books each branch lends and takes back a day.
import { Schema } from "effect"
import { Agg, Application, Column, Event, Projection, ReadModel, Topic, Window } from "millrace"

const step = { loan: Schema.String, book: Schema.String, branch: Schema.String, at: Schema.String }
export const BookLent = Event.make("book.lent", { ...step, reader: Schema.String })
export const BookReturned = Event.make("book.returned", step)
/** The key is the book: its events are in one partition, in their order. */
export const loans = Topic.events("loans.v1", {
  events: [BookLent, BookReturned],
  id: ({ loan, type }) => `${loan} ${type}`,
  key: "book",
  eventTime: ({ at }) => Date.parse(at),
  partitions: 2
})

export const books = ReadModel.table("books", {
  columns: {
    book: Schema.String,
    branch: Schema.NullOr(Schema.String), // null while a reader has the book
    reader: Schema.NullOr(Schema.String),
    loans: Schema.Int,
    since: Column.timestamptz
  },
  primaryKey: ["book"]
})
export const branchDays = Window.calendar("branch_days", {
  unit: "day",
  timeZone: "Europe/Berlin",
  grace: "1 day",
  key: { branch: Schema.String },
  aggregate: { lent: Agg.count, returned: Agg.count }
})
export const library = Projection.make({
  name: "library",
  version: 1,
  source: loans,
  dedupe: { within: "30 days" },
  writes: [books, branchDays],
  handle: {
    "book.lent": ({ book, branch, reader }, out, { meta }) => {
      out.add(branchDays, { branch, lent: true, returned: false })
      out.modify(books, { book }, (row) => ({
        book,
        branch: null,
        reader,
        loans: (row?.loans ?? 0) + 1,
        since: meta.eventTime
      }))
    },
    "book.returned": ({ book, branch }, out, { meta }) => {
      out.add(branchDays, { branch, lent: false, returned: true })
      out.modify(books, { book }, (row) => row && { ...row, branch, reader: null, since: meta.eventTime })
    }
  }
})

export default Application.make({ name: "library", projections: [Projection.async(library)] })
