// Creating an application: which folders and names are refused, and what the files are for Node and for Deno.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, assert, beforeEach, describe, test } from "vitest"
import { CannotCreate, createApplication } from "../../../src/cli/scaffold.ts"

let scratch = ""
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), "scaffold-"))
})
afterEach(() => rmSync(scratch, { recursive: true }))

const create = (folder: string, options: { readonly name?: string; readonly deno?: boolean } = {}) =>
  createApplication({ directory: join(scratch, folder), deno: false, version: "1.2.3", ...options })
const refusal = (run: () => unknown): string => {
  try {
    run()
  } catch (error) {
    if (error instanceof CannotCreate) return `${error.message}; try: ${error.try}`
    throw error
  }
  return assert.fail("nothing was refused")
}
const read = (...path: ReadonlyArray<string>) => readFileSync(join(scratch, ...path), "utf8")
const names = (folder: string) => readdirSync(join(scratch, folder)).toSorted()

describe("the files", () => {
  test("on Node: package.json depends on this version of Millrace, and the application has its name", () => {
    const { files, name, path } = create("Bike Rides")
    assert.strictEqual(name, "bike-rides")
    assert.strictEqual(path, join(scratch, "Bike Rides"))
    const own = ["README.md", "data", "millrace.config.ts", "package.json", "src", "test", "tsconfig.json"]
    assert.deepStrictEqual(names("Bike Rides"), [".gitignore", ...own])
    assert.include(files, join("src", "events.ts"))
    const { dependencies, name: npmName } = JSON.parse(read("Bike Rides", "package.json")) as {
      readonly name: string
      readonly dependencies: Readonly<Record<string, string>>
    }
    assert.strictEqual(npmName, "bike-rides")
    assert.strictEqual(dependencies["millrace"], "^1.2.3")
    assert.include(read("Bike Rides", "millrace.config.ts"), 'name: "bike-rides"')
    assert.include(read("Bike Rides", ".gitignore"), ".millrace/")
  })

  test("on Deno: deno.json in place of package.json, and all commands are Deno's", () => {
    create("app", { deno: true })
    assert.deepStrictEqual(names("app"), [
      ".gitignore",
      "README.md",
      "data",
      "deno.json",
      "millrace.config.ts",
      "src",
      "test"
    ])
    const { imports } = JSON.parse(read("app", "deno.json")) as { readonly imports: Readonly<Record<string, string>> }
    assert.strictEqual(imports["millrace"], "npm:millrace@^1.2.3")
    assert.notMatch(read("app", "README.md"), /npm (start|test|run)|npx|package\.json/)
    assert.include(read("app", "test", "usage.test.ts"), 'from "node:test"')
  })

  test("a name with a scope is the package's; the application has the part behind it", () => {
    create("app", { name: "@me/rides" })
    assert.include(read("app", "package.json"), '"name": "@me/rides"')
    assert.include(read("app", "millrace.config.ts"), 'name: "rides"')
  })

  test("the dependencies are those that Millrace was tested with, and both packages have one version", () => {
    type Texts = Readonly<Record<string, string>>
    const manifest = (path: string) =>
      JSON.parse(readFileSync(join(import.meta.dirname, "../../..", path), "utf8")) as Readonly<Record<string, Texts>>
    const template = manifest("templates/app/_package.json")
    const own = manifest("package.json")
    assert.strictEqual(template["dependencies"]!["effect"], own["peerDependencies"]!["effect"])
    assert.strictEqual(template["devDependencies"]!["typescript"], `^${own["devDependencies"]!["typescript"]}`)
    assert.strictEqual(template["devDependencies"]!["vitest"], `^${own["devDependencies"]!["vitest"]}`)
    assert.deepStrictEqual(template["engines"], own["engines"])
    const { effect } = manifest("templates/deno/_deno.json")["imports"]!
    assert.strictEqual(effect, `npm:effect@${own["peerDependencies"]!["effect"]}`)
    for (const path of ["create-millrace/package.json", "jsr.json"])
      assert.strictEqual(manifest(path)["version"], own["version"], path)
  })
})

describe("what is refused", () => {
  test("a folder with files, which stay as they are", () => {
    mkdirSync(join(scratch, "app"))
    for (const name of ["a", "b", "c", "d"]) writeFileSync(join(scratch, "app", name), name)
    assert.match(
      refusal(() => create("app")),
      /^the folder .*app is not empty, and nothing in it is overwritten: it has a, b, c and 1 more; try: name a folder that does not exist yet, such as .*app\/my-app; /
    )
    assert.deepStrictEqual(names("app"), ["a", "b", "c", "d"])
  })

  test("a file in place of the folder", () => {
    writeFileSync(join(scratch, "app"), "")
    assert.match(
      refusal(() => create("app")),
      /app is a file, not a folder; try: /
    )
  })

  test("names that npm does not accept, and names of packages that the application depends on", () => {
    for (const name of ["", "My App", "Rides", "a/b", "@me/", "../up", ".hidden", "a\nb", "node_modules"])
      assert.include(
        refusal(() => create("app", { name })),
        `the name '${name}' is `
      )
    assert.match(
      refusal(() => create("millrace")),
      /the folder 'millrace' gives no name that an application can have; try: .*--name my-app/
    )
    assert.match(
      refusal(() => create("日本")),
      /--name/
    )
    assert.isFalse(existsSync(join(scratch, "app")))
  })

  test("not: a folder that is empty, or a new repository", () => {
    mkdirSync(join(scratch, "empty"))
    create("empty")
    mkdirSync(join(scratch, "cloned", ".git"), { recursive: true })
    writeFileSync(join(scratch, "cloned", "LICENSE"), "mine")
    create("cloned")
    assert.strictEqual(read("cloned", "LICENSE"), "mine")
    assert.isTrue(existsSync(join(scratch, "cloned", "millrace.config.ts")))
  })
})
