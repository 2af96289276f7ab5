// The pages of the reference name all that there is: every error, option of a command, environment variable and metric, and nothing else.
import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, test } from "vitest"
import { exitCodeOf } from "../src/cli/command-failure.ts"
import { variables } from "../src/cli/variables.ts"
import * as SystemErrors from "../src/system/errors.ts"

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
const read = (path: string) => readFileSync(join(root, path), "utf8")
const page = (name: string) => read(`docs/reference/${name}.md`)
const source = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".ts"))
  .map((path) => read(`src/${path}`))
  .join("\n")
const migrations = readdirSync(join(root, "migrations"))
  .map((path) => read(`migrations/${path}`))
  .join("\n")

/** Every text that a pattern's only group finds, once. */
const all = (text: string, pattern: RegExp) => [...new Set([...text.matchAll(pattern)].map(([, found = ""]) => found))]
/** What a page has in `code`. */
const named = (markdown: string) => new Set(all(markdown, /`([^`\n]+)`/g))
const missing = (markdown: string, names: ReadonlyArray<string>) => names.filter((name) => !named(markdown).has(name))

test("errors.md has every code, every tag and every name of an error that the source has", () => {
  const [faults = "", problems = ""] = read("src/server/http/problem.ts")
    .split("/** Why one event was rejected. */")
    .map((part) => part.replaceAll(/^export type (FaultCode|StorageCode|ProblemCode|AggregateCode) =/gm, "\ncodes:"))
  const codes = all(`${faults}${problems.split("/** The error of a request")[0]}`, /"([a-z_0-9]+)"/g)
  const tags = all(source, /TaggedError(?:<\w+>\(\))?\("(\w+)"/g)
  const names = all(source, /(?:readonly (?:name|_tag) = "|\bclass )((?<=")\w+|\w+(?= extends Error\b))/g)
  const states = all(migrations, /errcode = '(MR\d+)'/g)
  expect(codes.length).toBeGreaterThan(60)
  expect(tags.length).toBeGreaterThan(60)
  expect(names).toContain("UnacceptableRecord")
  expect(states.length).toBeGreaterThan(3)
  // what others say in their place: dead letters, commands, and answers over HTTP
  const unnamed = new Set([
    "RepeatedRejection",
    "CannotCreate",
    "RefusedToken",
    "KeysUnavailable",
    // it has the name of its cause
    "UnreadablePersonal"
  ])
  const [, http = ""] = /\n## HTTP\n([\s\S]*?)\n## /.exec(page("errors")) ?? []
  expect(
    all(http, /^\| `(\w+)`/gm)
      .filter((name) => name !== "code")
      .toSorted()
  ).toEqual(codes.toSorted())
  expect(
    missing(page("errors"), [...codes, ...tags, ...names, ...states]).filter((name) => !unnamed.has(name))
  ).toEqual([])
})

test("errors.md has the status of each code, and the exit code of each error of a command", () => {
  const rows = new Map(
    [...page("errors").matchAll(/^\| `(\w+)` +\| ([\d, ]+?) +\|/gm)].map(([, name = "", numbers = ""]) => [
      name,
      numbers.split(", ")
    ])
  )
  const statuses = [...source.matchAll(/new Problem\(\s*(\d{3}),\s*"(\w+)"/g)].map(([, status = "", code = ""]) => ({
    code,
    status
  }))
  expect(statuses.length).toBeGreaterThan(40)
  expect(statuses.filter(({ code, status }) => rows.get(code)?.includes(status) !== true)).toEqual([])
  const exits = Object.entries(SystemErrors).flatMap(([name, SystemError]) =>
    [true, false].map((timedOut) => ({
      name,
      exit: String(exitCodeOf(new SystemError({ message: "", try: "", timedOut })))
    }))
  )
  expect(exits.filter(({ exit, name }) => rows.get(name)?.includes(exit) !== true)).toEqual([])
})

test("errors.md quotes reasons of halts as the source has them", () => {
  const [, halts = ""] = /\n## Why something is halted\n([\s\S]*?)\n## /.exec(page("errors")) ?? []
  const quoted = halts.split("\n").flatMap((row) => all(row.split(" | ")[0] ?? "", /`([^`]+)`/g))
  // what the source says is compared without its line breaks, quotes and values
  const plain = (text: string) =>
    text
      .replaceAll(/\$\{[^}]*\}/g, "…")
      .replaceAll(/` \+\s+`/g, "")
      .replaceAll(/\s+/g, " ")
  const said = plain(source)
  const parts = quoted.flatMap((text) => text.split("…").map((part) => part.trim())).filter((part) => part.length > 3)
  expect(parts.length).toBeGreaterThan(20)
  const ofPostgres = new Set(["permission denied", "does not exist"])
  expect(parts.filter((part) => !said.includes(part) && !ofPostgres.has(part))).toEqual([])
})

test("the status in commands.md has every kind of problem", () => {
  const [, kinds = ""] = /export type FindingKind =([\s\S]*?)\n\/\*\*/.exec(read("src/system/findings.ts")) ?? []
  expect(missing(page("commands"), all(kinds, /"(\w+)"/g))).toEqual([])
})

test("commands.md has every option of every command with the text that --help prints", () => {
  const { status, stdout } = spawnSync(
    process.execPath,
    [...("deno" in process.versions ? ["run", "-A"] : []), "bin/millrace.mjs", "--completions", "fish"],
    { cwd: root, encoding: "utf8" }
  )
  expect(status).toBe(0)
  const options = [...stdout.matchAll(/^complete -c millrace -n '(.*?)' -l (\S+) -d '(.*?)'(?: -r.*)?$/gm)].flatMap(
    ([, when = "", name = "", text = ""]) => {
      const command = all(when, /__fish_seen_subcommand_from ([\w-]+)/g).join(" ")
      const isInherited = command === "" || text.startsWith("Disable ")
      return isInherited ? [] : [`${command}: --${name}: ${text.replaceAll("\\'", "'")}`]
    }
  )
  expect(options.length).toBeGreaterThan(100)
  let command = ""
  const [, section = ""] = page("commands").split("\n## Every option\n")
  const documented = section
    .split("\n## ")[0]!
    .split("\n")
    .flatMap((line) => {
      const heading = /^### millrace ([a-z ]+?) *(?:[A-Z…[].*)?$/.exec(line)
      if (heading !== null) command = heading[1]!
      const row = /^\| `(--[\w-]+)` +\| (.*?) +\|$/.exec(line)
      return row === null ? [] : [`${command}: ${row[1]}: ${row[2]!.replaceAll("\\", "")}`]
    })
  expect(documented.toSorted()).toEqual(options.toSorted())
}, 60_000)

test("configuration.md has every environment variable, and no other", () => {
  const documented = all(page("configuration"), /^\| `(MILLRACE_\w+)`/gm)
  expect(documented.toSorted()).toEqual(variables.toSorted())
})

test("metrics.md has every metric, and no other", () => {
  const documented = all(page("metrics"), /^\| `(millrace_\w+)`/gm)
  const groups = "status|healthy|processes|projection|relay|timers|subscription|gateway|http|streams|bridge|commands"
  const metrics = all(source, new RegExp(`["' ](millrace_(?:${groups})\\w*)["' ]`, "g"))
  // a channel of PostgreSQL's notifications
  expect(documented.toSorted()).toEqual(metrics.filter((name) => name !== "millrace_relay").toSorted())
})
