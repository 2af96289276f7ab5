// Statements that `millrace sql` refuses before it sends them.
import { assert, test } from "vitest"
import { withStatements } from "../../../src/cli/arguments.ts"
import { rowPrinter } from "../../../src/cli/rows.ts"
import { firstWord, refusalOf } from "../../../src/cli/sql.ts"

test.each([
  ["Select 1", "select"],
  ["\n -- a comment; insert\n\t(WITH x as (select 1) table x)", "with"],
  ["/* a /* nested; */ one */ values (1)", "values"],
  ["/* never ends", ""],
  ["-- only a comment", ""],
  [" ; ", ""],
  ["", ""],
  ["'text'", "'"]
])("the first word of %j is %j", (text, word) => assert.strictEqual(firstWord(text), word))

test("what is no query is refused with what to do, with --write only what has no effect or prints no rows", () => {
  const message = (text: string, write: boolean) => refusalOf(text, write)?.message
  for (const write of [false, true]) {
    assert.strictEqual(message("-- nothing", write), "the query is empty")
    assert.strictEqual(message("copy t to stdout", write), "millrace sql has no copy")
    for (const text of ["set transaction read write", "set role x", "reset role", "commit", "begin", "listen x"])
      assert.match(message(text, write) ?? "", /has no effect here/)
    for (const text of [
      "select 1",
      "with x as (select 1) select 1",
      "values (1)",
      "table t",
      "show x",
      "explain select 1"
    ])
      assert.isUndefined(message(text, write))
  }
  for (const text of [
    "do $$ begin end $$",
    "insert into t values (1)",
    "call p()",
    "create table t ()",
    "vacuum",
    "alter system set x = 1"
  ]) {
    assert.match(message(text, false) ?? "", /without --write only queries run/)
    assert.isUndefined(message(text, true))
  }
})

test("columns with the same name keep their values under names of their own", () => {
  const printer = rowPrinter(
    "json",
    ["a", "a", "a_2", "a"].map((name) => ({ name, type: 23, delimiter: undefined }))
  )
  const text =
    printer.before + printer.rows([["1", "2", "3", "4"]]) + printer.rows([["5", "6", "7", "8"]]) + printer.after(2)
  assert.deepStrictEqual(JSON.parse(text), [
    { a: 1, a_3: 2, a_2: 3, a_4: 4 },
    { a: 5, a_3: 6, a_2: 7, a_4: 8 }
  ])
})

test("a statement that begins with a comment is not taken for a flag, and flags and their values stay as they are", () => {
  for (const [given, expected] of [
    [["-- a\nselect 1"], [" -- a\nselect 1"]],
    [
      ["--a b\nselect 1", "--data", "x"],
      [" --a b\nselect 1", "--data", "x"]
    ],
    [
      ["--format", "csv", "--\nselect 1"],
      ["--format", "csv", " --\nselect 1"]
    ],
    [["- 1"], [" - 1"]],
    [
      ["--data", "-- my dir", "select 1"],
      ["--data", "-- my dir", "select 1"]
    ],
    [
      ["--data=my dir", "--write", "select 1 -- x"],
      ["--data=my dir", "--write", "select 1 -- x"]
    ],
    [
      ["--", "-- a\nselect 1"],
      ["--", "-- a\nselect 1"]
    ]
  ] as const)
    assert.deepStrictEqual(withStatements(given), [...expected])
})
