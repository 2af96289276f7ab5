// A client generated from /openapi.json by a public generator: it compiles, and works with the running reference application. And the document itself:
// it is valid, and the answers are as it says.
import { execFileSync } from "node:child_process"
import { copyFileSync, existsSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, expect, test } from "vitest"
import * as Cli from "../support/cli.ts"
import { removed } from "../support/removed.ts"

interface Media {
  readonly schema?: object
}
interface Answer {
  readonly content?: Readonly<Record<string, Media>>
  readonly $ref?: string
}
interface Operation {
  readonly operationId: string
  readonly responses: Readonly<Record<string, Answer>>
}
interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly responses: Readonly<Record<string, Answer>> }
}

const here = import.meta.dirname
const modules = join(here, "node_modules")
const folder = mkdtempSync(join(tmpdir(), "millrace-generated-client-"))
const scope = Scope.makeUnsafe()
let url = ""
let document: Document
const load = async <A>(name: string): Promise<A> =>
  (await import(pathToFileURL(createRequire(join(here, "package.json")).resolve(name)).href)) as A
const bin = (path: string, ...args: ReadonlyArray<string>) =>
  execFileSync(process.execPath, [path, ...args], { cwd: folder, stdio: "pipe" })

beforeAll(async () => {
  const installed = join(modules, ".installed")
  const lock = readFileSync(join(here, "package-lock.json"), "utf8")
  if (!existsSync(installed) || readFileSync(installed, "utf8") !== lock) {
    execFileSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: here, stdio: "pipe" })
    writeFileSync(installed, lock)
  }
  const dev = await Effect.runPromise(
    Scope.provide(Cli.start({}, "dev", "--data", join(folder, "data"), "--port", "0"), scope)
  )
  url = /http:\S+?:\d+/.exec(await Effect.runPromise(dev.said(/POST http:\S+?:\d+/)))![0]
  document = (await (await fetch(`${url}/openapi.json`)).json()) as Document
  writeFileSync(join(folder, "openapi.json"), JSON.stringify(document))
}, 240_000)
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  await removed(folder)
})

test("a generated client compiles where it is right, does not where it is wrong, and works with the running application", () => {
  for (const types of ["types.ts", "millrace.d.ts"])
    bin(join(modules, "openapi-typescript/bin/cli.js"), "openapi.json", "-o", types)
  const page = readFileSync(join(here, "../../docs/reference/http.md"), "utf8")
  writeFileSync(join(folder, "page.js"), /```js\n(import createClient[\s\S]*?)```/.exec(page)![1]!)
  copyFileSync(join(here, "client.ts"), join(folder, "client.ts"))
  symlinkSync(modules, join(folder, "node_modules"))
  writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }))
  const compilerOptions = {
    strict: true,
    allowJs: true,
    checkJs: true,
    skipLibCheck: true,
    noEmit: true,
    allowImportingTsExtensions: true,
    module: "NodeNext",
    target: "ES2024",
    lib: ["ES2024", "DOM"],
    exactOptionalPropertyTypes: true,
    types: ["node"],
    typeRoots: [join(here, "../../node_modules/@types")]
  }
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts", "*.js"] }))
  try {
    // the repository's own compiler, which takes a tenth of the time of the generator's
    bin(join(here, "../../node_modules/typescript/bin/tsc"))
  } catch (error) {
    expect.fail(`the client does not compile: ${String((error as { readonly stdout?: Buffer }).stdout)}`)
  }
  const output = execFileSync(process.execPath, ["client.ts", url], { cwd: folder, encoding: "utf8" })
  expect(JSON.parse(output)).toMatchObject({
    accepted: 1,
    wrong: [
      422,
      { rejected: 1, results: [{ status: "rejected", error: { code: "schema_mismatch", path: "amount" } }] }
    ],
    unknown: [400, "unknown_column"],
    scores: [160],
    opened: [1, false],
    repeated: [1, true],
    rejected: [409, "CaseExists"],
    state: { status: "open", level: 0, by: null },
    records: ["t-1"],
    topics: ["features.entity.v1"],
    healthy: true,
    ready: true,
    live: expect.arrayContaining([["signals", 1]])
  })
}, 120_000)

test("the document is valid OpenAPI 3.1, and each operation has a name of its own", async () => {
  interface Validator {
    readonly validate: (document: object) => Promise<{ readonly valid: boolean; readonly errors?: unknown }>
  }
  const { Validator } = await load<{ readonly Validator: new () => Validator }>("@seriousme/openapi-schema-validator")
  expect(await new Validator().validate(structuredClone(document))).toMatchObject({ valid: true })
  const names = Object.values(document.paths).flatMap((item) => Object.values(item).map((one) => one.operationId))
  expect(names.length).toBeGreaterThan(40)
  expect(new Set(names).size).toBe(names.length)
  for (const name of names) expect(name).toMatch(/^(get|post)[A-Za-z0-9_]+$/)
})

test("answers and refusals are as the document describes them", async () => {
  type Check = ((value: unknown) => boolean) & { readonly errors?: unknown }
  const { Ajv2020 } = await load<{ readonly Ajv2020: new (options: object) => { compile(schema: object): Check } }>(
    "ajv/dist/2020.js"
  )
  const ajv = new Ajv2020({ strict: false, validateFormats: false })
  const inPath: Readonly<Record<string, string>> = { topic: "events.raw.v1", name: "signals", id: "alert-1" }
  const skipped: Array<string> = []
  for (const [path, { get }] of Object.entries(document.paths)) {
    // streams do not end
    if (get === undefined || path.endsWith("/stream") || path === "/v1/alerts" || path.endsWith("/changes")) continue
    const target = path.replaceAll(/\{(\w+)\}/g, (_, name: string) => inPath[name] ?? "x")
    // one that cannot be read, too
    for (const query of ["", "?limit=x"]) {
      const response = await fetch(`${url}${target}${query}`)
      const what = `GET ${target}${query}: ${response.status}`
      const { $ref, content } = get.responses[response.status] ?? {}
      const shared = document.components.responses[$ref?.split("/").at(-1) ?? ""]
      const [type = "", media] = Object.entries(content ?? shared?.content ?? {})[0] ?? []
      if (media?.schema === undefined) {
        skipped.push(what)
        await response.body?.cancel()
        continue
      }
      expect(response.headers.get("content-type"), what).toContain(type)
      const value: unknown = type.endsWith("json") ? await response.json() : await response.text()
      const check = ajv.compile({ ...media.schema, components: document.components })
      expect(check(value), `${what}: ${JSON.stringify(check.errors)}: ${JSON.stringify(value).slice(0, 500)}`).toBe(
        true
      )
    }
  }
  expect(skipped).toEqual([])
})
