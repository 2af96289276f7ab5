// Each example has what a user who copies its folder needs, in the versions of this checkout, and is listed in the index.
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, test } from "vitest"

const root = fileURLToPath(new URL("../..", import.meta.url))
const read = (path: string) => readFileSync(join(root, path), "utf8")
interface Package {
  readonly name: string
  readonly version: string
  readonly exports: object
  readonly type: string
  readonly scripts: Readonly<Record<string, string>>
  readonly dependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
  readonly peerDependencies: Readonly<Record<string, string>>
}
const packageOf = (folder: string) => JSON.parse(read(join(folder, "package.json"))) as Package
const own = packageOf(".")
const names = readdirSync(join(root, "examples"), { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && entry.name !== "node_modules")
  .map(({ name }) => name)

describe.each(names)("examples/%s", (name) => {
  const folder = join("examples", name)
  test("has a page that says how to run it and what to change next, is in the index, and is run by a test", () => {
    const page = read(join(folder, "README.md"))
    expect(page).toMatch(/^# .+\n\n[A-Z]/)
    expect(page).toMatch(/npm install\n[\s\S]*npm start|deno task start|docker compose up/)
    expect(page).toContain("\n## What to change next\n")
    expect(read("examples/README.md")).toContain(`](${name}/README.md)`)
    expect(existsSync(join(root, `test/integration/examples/${name}.test.ts`))).toBe(true)
  })
  test("installs the versions of this checkout", () => {
    if (existsSync(join(root, folder, "deno.json"))) {
      const { imports } = JSON.parse(read(join(folder, "deno.json"))) as { readonly imports: object }
      expect(imports).toEqual({
        effect: `npm:effect@${own.peerDependencies["effect"]}`,
        millrace: `npm:millrace@^${own.version}`
      })
      return
    }
    const { dependencies, devDependencies, scripts, type } = packageOf(folder)
    expect(type).toBe("module")
    expect(scripts).toMatchObject({ start: expect.any(String), test: "node --test" })
    expect(dependencies).toMatchObject({ millrace: `^${own.version}`, effect: own.peerDependencies["effect"] })
    const major = (range = "") => /\d+/.exec(range)?.[0]
    const { node, typescript } = own.devDependencies
    expect([major(devDependencies["typescript"]), major(devDependencies["@types/node"])]).toEqual([
      major(typescript),
      major(node)
    ])
  })
})
test("in a checkout the examples import this version and its entry points", () => {
  const { exports, name, version } = packageOf("examples/node_modules/millrace")
  expect({ exports, name, version }).toEqual({ exports: own.exports, name: own.name, version: own.version })
})
