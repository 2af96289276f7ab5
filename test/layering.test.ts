// Imports run downwards only. The table of rooms is the rule; this file reads every import and holds the code to it. It knows no types.
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, posix, relative, sep } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, test } from "vitest"
import { parseAst } from "vitest/node"

interface Room {
  /** What belongs to the room: files, and folders with a closing slash. No place belongs to two. */
  readonly holds: ReadonlyArray<string>
  /** The rooms it may import besides itself. */
  readonly sees: ReadonlyArray<string>
  /** Packages and built-ins it may import. Absent: any but a test runner. */
  readonly packages?: RegExp
}

/** Files of `src/` by name, folders by name and slash; several to a string. */
const src = (...names: ReadonlyArray<string>) =>
  names.flatMap((list) => list.split(" ")).map((name) => `src/${name.endsWith("/") ? name : `${name}.ts`}`)

// Effect's unstable modules may break in a minor, so they stay out of the rooms that users' types rest on.
const unstable =
  "sql|http|http-api|rpc|cli|cluster|workflow|eventlog|persistence|encoding|crypto|process|socket|net|workers|" +
  "reactivity|observability|devtools|ai|graphql|schema|FileSystem|Path|PlatformError|Terminal"
const effectOnly = new RegExp(`^effect/(?!(${unstable})(/|$))`)
const effectAnywhere = new RegExp(`^effect(/(?!(${unstable})(/|$))|$)`)
const effectAndComputing =
  /^(effect\/(?!(cli|http|http-api|sql|FileSystem)(\/|$))|node:(crypto|zlib|buffer|util|perf_hooks)$)/
const testRunner = /^(vitest|@effect\/vitest|@vitest\/|node:test|jest|@jest\/|mocha|bun:test)/
const adapters = ["memory", "embedded", "postgres", "kafka", "pulsar"]
const below = ["pure", "ports"]

/** The rooms, from the bottom up. A new file in `src/` is given its place here first. */
const rooms: Readonly<Record<string, Room>> = {
  pure: {
    holds: src(
      "aggregate application dead-letter driver event failure fields handler murmur2 packing projection",
      "read-model recorder runnable struct tenancy topic window",
      "bridge bridge-letter bridge-names bridge-route bridge-shape"
    ),
    sees: [],
    packages: effectOnly
  },
  ports: {
    holds: src(
      "log log-cleaner log-group log-rules fanout once outbox retry store relay-target subscription subscription-letter topic-plan",
      "bridge-ends resend resend-to-pulsar"
    ),
    sees: ["pure"],
    packages: effectOnly
  },
  index: { holds: src("index"), sees: below, packages: effectOnly },
  testing: { holds: src("testing testing/"), sees: ["pure"], packages: effectOnly },
  loops: {
    holds: src(
      "batch dedupe handling parking published references relay runner waiting",
      "bridge-lanes bridge-letters bridge-presence bridge-retry bridge-run bridge-state bridge-stream bridge-to-kafka bridge-to-pulsar"
    ),
    sees: below,
    packages: effectAndComputing
  },
  ...Object.fromEntries(adapters.map((name): [string, Room] => [name, { holds: src(`${name}/`), sees: below }])),
  system: { holds: src("system status"), sees: [...below, "loops", ...adapters] },
  server: { holds: src("server/"), sees: [...below, "loops", ...adapters] },
  cli: { holds: src("cli/"), sees: [...below, "index", "loops", ...adapters, "system", "server"] },
  application: {
    holds: ["aggregates/", "projections/", "millrace.config.ts"],
    sees: ["index"],
    packages: effectAnywhere
  }
}

/** What the package's own name leads to, in a checkout. */
const ownNames: Readonly<Record<string, string>> = {
  millrace: "src/index.ts",
  "millrace/system": "src/system.ts",
  "millrace/testing": "src/testing.ts"
}

const roomOf = (file: string): string | undefined =>
  Object.keys(rooms).find((name) =>
    rooms[name]?.holds.some((place) => (place.endsWith("/") ? file.startsWith(place) : file === place))
  )

/** Every specifier that a module names: imports, `import type`, `export … from`, `import()` as a value and as a type. */
const importsOf = (code: string): Array<string> => {
  const found: Array<string> = []
  const visit = (node: unknown): void => {
    if (typeof node !== "object" || node === null) return
    if (Array.isArray(node)) return node.forEach(visit)
    const { type, source } = node as { readonly type?: string; readonly source?: { readonly value?: unknown } }
    if (type !== undefined && /^(Import|Export|TSImportType)/.test(type) && source != null) {
      found.push(typeof source.value === "string" ? source.value : "(computed)")
    }
    Object.values(node).forEach(visit)
  }
  visit(parseAst(code, { lang: "ts" }).body)
  return found
}

/** One sentence for each import that breaks the rule, and for each file that has no room. Paths are relative, with slashes. */
const violations = (files: ReadonlyMap<string, string>): Array<string> => {
  const found: Array<string> = []
  for (const [file, code] of files) {
    const name = roomOf(file)
    const room = name === undefined ? undefined : rooms[name]
    if (name === undefined || room === undefined) {
      found.push(`${file} has no room: name it in the table of test/layering.test.ts, in the lowest room that suffices`)
      continue
    }
    for (const specifier of importsOf(code)) {
      const target = specifier.startsWith(".") ? posix.join(posix.dirname(file), specifier) : ownNames[specifier]
      if (target === undefined) {
        if (testRunner.test(specifier)) found.push(`${file} (${name}) imports the test runner ${specifier}`)
        else if (room.packages?.test(specifier) === false) found.push(`${file} (${name}) imports ${specifier}`)
        continue
      }
      const place = roomOf(target)
      if (place === name || (place !== undefined && room.sees.includes(place))) continue
      found.push(`${file} (${name}) imports ${target} (${place ?? "no room"})`)
    }
  }
  return found
}

const root = join(dirname(fileURLToPath(import.meta.url)), "..")

const sources = (): Map<string, string> => {
  const paths = ["src", "aggregates", "projections"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
      .map((entry) => relative(root, join(entry.parentPath, entry.name)).split(sep).join("/"))
  )
  return new Map([...paths, "millrace.config.ts"].map((path) => [path, readFileSync(join(root, path), "utf8")]))
}

test("imports run downwards only", () => {
  const files = sources()
  expect(files.size).toBeGreaterThan(10)
  expect(violations(files)).toEqual([])
})

test("a new file in src must be given a room", () => {
  expect(violations(new Map([["src/manager.ts", ""]]))).toEqual([expect.stringContaining("src/manager.ts has no room")])
  expect(violations(new Map([["src/mongo/log.ts", ""]]))).toHaveLength(1)
})

const planted: ReadonlyArray<readonly [title: string, file: string, code: string]> = [
  ["upwards", "src/event.ts", `import { Log } from "./log.ts"`],
  ["upwards, a type only", "src/log.ts", `import type { Runner } from "./runner.ts"`],
  ["upwards, one type of several", "src/log.ts", `import { type Runner } from "./runner.ts"`],
  ["upwards, passed on", "src/topic.ts", `export * from "./store.ts"`],
  ["upwards, passed on by name", "src/topic.ts", `export type { Store } from "./store.ts"`],
  ["upwards, later", "src/runner.ts", `const load = async () => import("./postgres/store.ts")`],
  ["upwards, within a type", "src/store.ts", `export type Server = import("./server/gateway.ts").Gateway`],
  ["upwards, for its effects", "src/relay.ts", `import "./server/gateway.ts"`],
  ["a computed import", "src/runner.ts", "const load = (name: string) => import(name)"],
  ["sideways, between adapters", "src/embedded/log.ts", `import { sql } from "../postgres/sql.ts"`],
  ["an adapter and a loop", "src/kafka/log.ts", `import { run } from "../runner.ts"`],
  ["a server and a command", "src/server/gateway.ts", `import { main } from "../cli/main.ts"`],
  ["a driver below the adapters", "src/runner/batch.ts", `import postgres from "postgres"`],
  ["I/O in a pure module", "src/window.ts", `import { readFile } from "node:fs/promises"`],
  ["an unstable module in a public type", "src/topic.ts", `import * as Http from "effect/http/HttpClient"`],
  ["the whole of effect at start-up", "src/topic.ts", `import { Schema } from "effect"`],
  ["a test runner in the kit", "src/testing.ts", `import { expect } from "vitest"`],
  ["a test runner in the server", "src/server/health.ts", `import { test } from "node:test"`],
  ["the kit and a port", "src/testing/driver.ts", `import { Log } from "../log.ts"`],
  ["past the public names", "projections/signals.ts", `import { murmur2 } from "../src/model/partitioner.ts"`],
  ["a file without a room", "src/runner.ts", `import { help } from "./utils.ts"`]
]

test.each(planted)("found: %s", (_title, file, code) => {
  expect(violations(new Map([[file, code]]))).toHaveLength(1)
})

test("not found: what is allowed, and imports that are only text", () => {
  const allowed = new Map([
    ["src/projection.ts", `import * as Effect from "effect/Effect"\nimport type { Topic } from "./topic.ts"`],
    [
      "src/postgres/store.ts",
      `import postgres from "postgres"\nimport { Store } from "../store.ts"\nimport "./sql.ts"`
    ],
    ["src/cli/main.ts", `import { gateway } from "../server/gateway.ts"\nawait import("../postgres/store.ts")`],
    ["projections/signals.ts", `import { Topic } from "millrace"\nimport { Schema } from "effect"`],
    ["src/event.ts", `// import { Log } from "./log.ts"\nexport const text = 'import { Log } from "./log.ts"'`]
  ])
  expect(violations(allowed)).toEqual([])
})
