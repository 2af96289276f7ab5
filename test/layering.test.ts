// Holds the rooms of src/ to their order: imports run downwards only, no files and no rooms import each other in a circle, and
// adapters do not know each other. It reads every import of every file.
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, posix, relative, sep } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, test } from "vitest"
import { parseAst } from "vitest/node"

/**
 * The rooms of `src/`, from the bottom up. A room is a folder, without the folders in it; `.` is `src/` itself, the public names. A room
 * imports from the layers below its own, not from its neighbours. A new folder gets its place here first, in the lowest layer that suffices.
 */
const layers: ReadonlyArray<ReadonlyArray<string>> = [
  ["text"],
  // the client of Kafka stands on nothing of the project but text, so that another client can replace it alone
  ["model", "kafka/protocol"],
  ["log", "monitor"],
  ["dead-letter"],
  ["erasure"],
  ["runner", "relay", "subscription"],
  ["aggregate"],
  ["bridge", "memory"],
  [".", "postgres/embedded", "postgres/client", "pulsar/client"],
  ["testing", "postgres/log", "kafka/log"],
  [
    "postgres/store",
    "postgres/relay",
    "postgres/subscription",
    "kafka/relay",
    "kafka",
    "pulsar/subscription",
    "pulsar/relay"
  ],
  ["pulsar", "postgres/events"],
  ["system"],
  ["system/dead-letters"],
  ["server/http"],
  ["server/access", "server/connection"],
  ["server/gateway", "server/streams", "server/aggregates", "server/views", "server/console"],
  ["server/changes", "server/operations"],
  ["server"],
  ["cli"]
]
/** Technologies: their rooms do not import each other's, so that one can be replaced alone. */
const adapters = ["kafka", "memory", "postgres", "pulsar"]
/** Rooms that show other rooms only some of their files. */
const doors: Readonly<Record<string, ReadonlyArray<string>>> = {
  "kafka/protocol": ["src/kafka/protocol/protocol.ts", "src/kafka/protocol/options.ts"]
}

// Effect's unstable modules may change in a minor version, so they stay out of the rooms that users' types rest on.
const unstable =
  "sql|http|http-api|rpc|cli|cluster|workflow|eventlog|persistence|encoding|crypto|process|socket|net|workers|" +
  "reactivity|observability|devtools|ai|graphql|schema|FileSystem|Path|PlatformError|Terminal"
const effectOnly = new RegExp(`^effect/(?!(${unstable})(/|$))`)
const effectAnywhere = new RegExp(`^effect(/(?!(${unstable})(/|$))|$)`)
const effectAndComputing =
  /^(effect\/(?!(cli|http|http-api|sql|FileSystem)(\/|$))|node:(crypto|zlib|buffer|util|perf_hooks|async_hooks)$)/
const testRunner = /^(vitest|@effect\/vitest|@vitest\/|node:test|jest|@jest\/|mocha|bun:test)/
/** The packages and built-ins that a room may import; a room that is not named may import any but a test runner. */
const packages: Readonly<Record<string, RegExp>> = {
  ...Object.fromEntries(
    ["text", "model", "log", "monitor", "dead-letter", "relay", "subscription", "."].map((room) => [room, effectOnly])
  ),
  // of built-ins what computes alone: file URLs in stack traces, and the channel on which stages of a batch are published
  "dead-letter": new RegExp(`${effectOnly.source}|^node:url$`),
  log: new RegExp(`${effectOnly.source}|^node:diagnostics_channel$`),
  // the kit reads files of samples that are kept beside the code
  testing: new RegExp(`${effectOnly.source}|^node:fs$`),
  ...Object.fromEntries(["runner", "bridge", "aggregate", "erasure"].map((room) => [room, effectAndComputing])),
  application: effectAnywhere
}

/** Packages that one room alone may import. */
const owners: Readonly<Record<string, string>> = { kafkajs: "kafka/protocol" }

/** What the package's own name leads to, in a checkout. */
const ownNames: Readonly<Record<string, string>> = {
  millrace: "src/index.ts",
  "millrace/system": "src/system/index.ts",
  "millrace/testing": "src/testing/testing.ts"
}

/** A file's room: its folder below `src/`, or `application` for the reference application beside it. Undefined: it has none. */
const roomOf = (file: string): string | undefined => {
  if (/^(aggregates\/|projections\/|millrace\.config\.ts$)/.test(file)) return "application"
  if (!file.startsWith("src/")) return undefined
  const folder = posix.relative("src", posix.dirname(file)) || "."
  return layers.flat().includes(folder) ? folder : undefined
}
const layerOf = (room: string) => layers.findIndex((rooms) => rooms.includes(room))
const adapterOf = (room: string) => adapters.find((name) => room === name || room.startsWith(`${name}/`))
const maySee = (from: string, to: string): boolean => {
  if (from === to) return true
  if (from === "application" || to === "application") return from === "application" && to === "."
  const [own, other] = [adapterOf(from), adapterOf(to)]
  return layerOf(to) < layerOf(from) && (own === undefined || other === undefined || own === other)
}

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

/** The files of the project that a module imports, by their paths from the root, and the packages. */
const targetsOf = (file: string, code: string) =>
  importsOf(code).map((specifier) => ({
    specifier,
    target: specifier.startsWith(".") ? posix.join(posix.dirname(file), specifier) : ownNames[specifier]
  }))

/** One sentence for each import that breaks the rule, and for each file that has no room. Paths are relative, with slashes. */
const violations = (files: ReadonlyMap<string, string>): Array<string> => {
  const found: Array<string> = []
  for (const [file, code] of files) {
    const room = roomOf(file)
    if (room === undefined) {
      found.push(`${file} has no room: name its folder in the layers of test/layering.test.ts`)
      continue
    }
    for (const { specifier, target } of targetsOf(file, code)) {
      if (target === undefined) {
        if (testRunner.test(specifier)) found.push(`${file} (${room}) imports the test runner ${specifier}`)
        else if (packages[room]?.test(specifier) === false || (owners[specifier] ?? room) !== room)
          found.push(`${file} (${room}) imports ${specifier}`)
        continue
      }
      const other = roomOf(target)
      if (other === undefined || !maySee(room, other))
        found.push(`${file} (${room}) imports ${target} (${other ?? "no room"})`)
      else if (room !== other && doors[other]?.includes(target) === false)
        found.push(`${file} (${room}) imports ${target}, which is not a door of ${other}`)
    }
  }
  return found
}

/** Files that import each other in a circle, one list a circle (Tarjan's strongly connected components). */
const circles = (files: ReadonlyMap<string, string>): Array<ReadonlyArray<string>> => {
  const index = new Map<string, number>()
  const low = new Map<string, number>()
  const stack: Array<string> = []
  const found: Array<ReadonlyArray<string>> = []
  const visit = (file: string) => {
    index.set(file, index.size)
    low.set(file, index.get(file)!)
    stack.push(file)
    for (const { target } of targetsOf(file, files.get(file)!)) {
      if (target === undefined || !files.has(target)) continue
      if (!index.has(target)) visit(target)
      if (stack.includes(target)) low.set(file, Math.min(low.get(file)!, low.get(target)!))
    }
    if (low.get(file) !== index.get(file)) return
    const circle = stack.splice(stack.indexOf(file))
    if (circle.length > 1) found.push(circle.toSorted())
  }
  for (const file of files.keys()) if (!index.has(file)) visit(file)
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

test("no files import each other in a circle", () => {
  expect(circles(sources())).toEqual([])
})

test("a circle is found, and a chain is not one", () => {
  const chain = [
    ["src/log/a.ts", `import "./b.ts"`],
    ["src/log/b.ts", `import "./c.ts"`]
  ] as const
  expect(circles(new Map([...chain, ["src/log/c.ts", ""]]))).toEqual([])
  expect(circles(new Map([...chain, ["src/log/c.ts", `import type { A } from "./a.ts"`]]))).toEqual([
    ["src/log/a.ts", "src/log/b.ts", "src/log/c.ts"]
  ])
})

test("only the public names lie in src itself", () => {
  const flat = [...sources().keys()].filter((file) => /^src\/[^/]+$/.test(file))
  expect(flat.filter((file) => !["src/index.ts", "src/projection.ts"].includes(file))).toEqual([])
})

test("a file in a new folder of src must be given a room", () => {
  expect(violations(new Map([["src/managers/manager.ts", ""]]))).toEqual([
    expect.stringContaining("src/managers/manager.ts has no room")
  ])
  expect(violations(new Map([["src/mongo/log.ts", ""]]))).toHaveLength(1)
})

const planted: ReadonlyArray<readonly [title: string, file: string, code: string]> = [
  ["upwards", "src/model/event.ts", `import { Log } from "../log/log.ts"`],
  ["upwards, a type only", "src/log/log.ts", `import type { Runner } from "../runner/runner.ts"`],
  ["upwards, one type of several", "src/log/log.ts", `import { type Runner } from "../runner/runner.ts"`],
  ["upwards, re-exported", "src/model/topic.ts", `export * from "../runner/store.ts"`],
  ["upwards, re-exported by name", "src/model/topic.ts", `export type { Store } from "../runner/store.ts"`],
  ["upwards, loaded later", "src/runner/runner.ts", `const load = async () => import("../postgres/store/store.ts")`],
  ["upwards, within a type", "src/runner/store.ts", `export type Server = import("../server/server.ts").Server`],
  ["upwards, for its effects", "src/relay/relay.ts", `import "../server/server.ts"`],
  [
    "upwards, from a port's adapter to a system",
    "src/kafka/log/log.ts",
    `import { layer } from "../../system/system.ts"`
  ],
  ["a neighbour of the same layer", "src/runner/runner.ts", `import { relay } from "../relay/relay.ts"`],
  ["a computed import", "src/runner/runner.ts", "const load = (name: string) => import(name)"],
  ["the inside of a room that has doors", "src/kafka/log/log.ts", `import { Client } from "../protocol/client.ts"`],
  ["the log's port in the client of Kafka", "src/kafka/protocol/client.ts", `import { Log } from "../../log/log.ts"`],
  ["a package that belongs to another room", "src/kafka/log/topics.ts", `import KafkaJs from "kafkajs"`],
  ["one adapter and another", "src/kafka/relay/relay.ts", `import { sql } from "../../postgres/client/client.ts"`],
  ["two capabilities of one adapter", "src/pulsar/relay/relay.ts", `import { make } from "../subscription/fanout.ts"`],
  ["a server and a command", "src/server/server.ts", `import { main } from "../cli/main.ts"`],
  ["a driver below the adapters", "src/runner/fold.ts", `import postgres from "postgres"`],
  ["I/O in the model", "src/model/window.ts", `import { readFile } from "node:fs/promises"`],
  ["an unstable module in a public type", "src/model/topic.ts", `import * as Http from "effect/http/HttpClient"`],
  ["the whole of effect at start-up", "src/model/topic.ts", `import { Schema } from "effect"`],
  ["a test runner in the kit", "src/testing/testing.ts", `import { expect } from "vitest"`],
  ["a test runner in the server", "src/server/health.ts", `import { test } from "node:test"`],
  [
    "the application past the public names",
    "projections/signals.ts",
    `import { a } from "../src/model/partitioner.ts"`
  ],
  ["a file without a room", "src/runner/runner.ts", `import { help } from "../utils/help.ts"`]
]

test.each(planted)("found: %s", (_title, file, code) => {
  expect(violations(new Map([[file, code]]))).toHaveLength(1)
})

test("not found: what is allowed, and imports that are only text", () => {
  const allowed = new Map([
    ["src/runner/fold.ts", `import * as Effect from "effect/Effect"\nimport type { Topic } from "../model/topic.ts"`],
    [
      "src/postgres/store/store.ts",
      `import postgres from "postgres"\nimport { Store } from "../../runner/store.ts"\nimport "../client/client.ts"`
    ],
    ["src/cli/main.ts", `import { gateway } from "../server/server.ts"\nawait import("../postgres/store/store.ts")`],
    ["projections/signals.ts", `import { Topic } from "millrace"\nimport { Schema } from "effect"`],
    [
      "src/model/event.ts",
      `// import { Log } from "../log/log.ts"\nexport const text = 'import { Log } from "../log/log.ts"'`
    ]
  ])
  expect(violations(allowed)).toEqual([])
})
