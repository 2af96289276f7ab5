// Given, when, then, run by `deno test`.
import { test } from "node:test"
import { ProjectionTest } from "millrace/testing"
import { BookLent, BookReturned, library } from "./millrace.config.ts"

const book = "Emma"
const lent = BookLent.make({ loan: "l-1", book, branch: "Riverside", reader: "r-12", at: "2026-09-07T23:30:00+02:00" })
const returned = BookReturned.make({ loan: "l-1", book, branch: "Old Town", at: "2026-09-08T00:10:00+02:00" })

test("a book that is lent is at no branch", () => {
  ProjectionTest.make(library)
    .when([lent])
    .then({ books: [{ book, branch: null, reader: "r-12", loans: 1 }] })
})
test("a day of a branch begins at midnight in Berlin", () => {
  ProjectionTest.make(library)
    .when([lent, returned])
    .then({
      books: [{ book, branch: "Old Town", reader: null, loans: 1 }],
      branch_days: [
        { branch: "Riverside", window_start: Date.parse("2026-09-07T00:00:00+02:00"), lent: 1, returned: 0 },
        { branch: "Old Town", window_start: Date.parse("2026-09-08T00:00:00+02:00"), lent: 0, returned: 1 }
      ]
    })
})
