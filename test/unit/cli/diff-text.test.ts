// The difference of two builds as text and as JSON: numbers lose no digits, and what is not compared is named.
import { expect, test } from "vitest"
import { diffText } from "../../../src/cli/diff-text.ts"
import { diffJson } from "../../../src/system/diff-json.ts"
import type { ComparedColumn } from "../../../src/postgres/store/compare.ts"
import type { Diff, TableDiff } from "../../../src/system/diff.ts"

const column = (name: string, type: string, oid: number): ComparedColumn => ({ name, type, oid, delimiter: undefined })
const [user, amount, note] = [column("user", "text", 25), column("amount", "bigint", 20), column("note", "jsonb", 3802)]
const same = { missing: 0, extra: 0, changed: 0, rounding: 0, rows: { live: 2, candidate: 2 }, samples: [] }
const whole = { notCompared: undefined, onlyIn: undefined, onlyLive: [], onlyCandidate: [], retyped: [] }
const totals: TableDiff = {
  ...same,
  ...whole,
  isByOrder: true,
  name: "totals",
  changed: 1,
  missing: 1,
  samples: [
    {
      kind: "missing",
      key: [{ column: user, text: "a" }],
      live: [{ column: note, text: null }],
      candidate: undefined
    },
    {
      kind: "changed",
      key: [{ column: user, text: 'b"' }],
      live: [
        { column: amount, text: "9007199254740993" },
        { column: note, text: "1" }
      ],
      candidate: [
        { column: amount, text: "2" },
        { column: note, text: `{"long": "${"x".repeat(300)}"}` }
      ]
    }
  ]
}
const keyed: TableDiff = { ...same, ...whole, isByOrder: true, name: "keyed", notCompared: "its keys differ" }
const found: Diff = {
  projection: "p",
  live: 1,
  candidate: 2,
  tables: [totals, keyed],
  late: same,
  deadLetters: same,
  lookupDeadLetters: { live: 2, candidate: 1 },
  messages: [{ topic: "out", live: 3, candidate: 4 }],
  lookups: ["all events see today's values of lookups"],
  equal: false,
  frozenMs: 12.4
}

test("JSON has the digits of the database, and null for what is not there", () => {
  const json = diffJson(found)
  expect(json).toContain(
    String.raw`{"kind":"changed","key":{"user":"b\""},"live":{"amount":"9007199254740993","note":1},"candidate":{"amount":2,"note":{"long": "x`
  )
  const { tables, ...rest } = JSON.parse(json)
  expect(rest).toEqual({
    projection: "p",
    live: 1,
    candidate: 2,
    late: same,
    deadLetters: same,
    lookupDeadLetters: { live: 2, candidate: 1 },
    messages: [{ topic: "out", live: 3, candidate: 4 }],
    lookups: ["all events see today's values of lookups"],
    frozenMs: 12,
    equal: false
  })
  expect(tables[0].samples[0]).toEqual({ kind: "missing", key: { user: "a" }, live: { note: null }, candidate: null })
  expect(tables[1]).toEqual({ ...same, ...whole, name: "keyed", notCompared: "its keys differ", onlyIn: null })
  expect(JSON.parse(diffJson({ ...found, messages: undefined })).messages).toBe(null)
})

test("the text shows counts, samples with long values cut off, and what is not compared", () => {
  const text = diffText(found)
  expect(text).toMatch(/^p: build 2 compared with the live build 1, which was frozen for 12 ms\n/)
  expect(text).toMatch(/│ totals +│ 2 +│ 2 +│ 1 +│ 0 +│ 1 +│ 0 +│/)
  expect(text).toContain(
    'totals:\n  missing: user "a": note null\n  changed: user "b\\"": amount 9007199254740993 → 2, note 1 → {"long": '
  )
  expect(text).toContain("… (")
  expect(text).toContain("\nkeyed is not compared: its keys differ\n")
  expect(text).toContain("\ndead letters of lookup topics: 2 in 1, 1 in 2; not compared\n")
  expect(text).toMatch(
    /\nmessages of handlers to out: 3 by build 1, 4 by build 2\nall events see today's values of lookups\nrows of totals that events of several partitions write may differ by the order [^\n]*\ndifferent$/
  )
})

test("the paths at which JSON values differ are named, and long values are shown where they differ", () => {
  const text = column("text", "text", 25)
  const sampleOf = (live: string, candidate: string, of = note) =>
    diffText({
      ...found,
      tables: [
        {
          ...totals,
          isByOrder: false,
          samples: [
            {
              kind: "changed",
              key: [{ column: user, text: "a" }],
              live: [{ column: of, text: live }],
              candidate: [{ column: of, text: candidate }]
            }
          ]
        }
      ]
    })
  const long = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`q${i}`, i]))
  const days = [{ wh: 1 }, { wh: 2, "odd name": null }]
  const one = sampleOf(
    JSON.stringify({ ...long, days }),
    JSON.stringify({ ...long, q7: undefined, days: [days[0], { wh: 3, "odd name": 1 }] })
  )
  expect(one).toContain('changed: user "a": note: q7 7 → missing; days[1].wh 2 → 3; days[1]["odd name"] null → 1\n')
  expect(one).not.toContain("several partitions")
  const many = sampleOf(JSON.stringify(long), "{}")
  expect(many).toContain("q4 4 → missing; and at 95 more paths\n")
  // digits that a number of JavaScript does not have, and a value of another kind
  expect(sampleOf("9007199254740993", "9007199254740992")).toContain("note 9007199254740993 → 9007199254740992")
  const start = "x".repeat(1_000)
  expect(sampleOf(`${start}live`, `${start}candidate`, text)).toContain("text differs from character 1001 on: …x")
  expect(sampleOf(`${start}live`, `${start}candidate`, text)).toMatch(/x{50}live → …x{50}candidate\n/)
})
