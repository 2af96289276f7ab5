// Checks mistakes.ts: each `@ts-expect-error` is above exactly one error, and its examples run.
import { spawnSync } from "node:child_process"
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, test } from "vitest"

const root = join(dirname(fileURLToPath(import.meta.url)), "../..")
const directive = /^\s*\/\/ @ts-expect-error (.+)$/
const lines = readFileSync(join(root, "test/types/mistakes.ts"), "utf8").split("\n")
const mistakes = lines.flatMap((line, i) => {
  const comment = directive.exec(line)?.[1]
  return comment === undefined ? [] : [{ comment, line: i + 2 }]
})

/** The lines of a file in `folder` that do not compile with the project's settings. */
const errorsOf = (folder: string, name: string): ReadonlyArray<number> => {
  const config = join(folder, "tsconfig.json")
  writeFileSync(config, JSON.stringify({ extends: join(root, "tsconfig.json"), include: [], files: [name] }))
  const prefix = "deno" in process.versions ? ["run", "-A"] : []
  const compiler = join(root, "node_modules/typescript/lib/tsc.js")
  const { error, stdout } = spawnSync(process.execPath, [...prefix, compiler, "--pretty", "false", "-p", config], {
    cwd: root,
    encoding: "utf8"
  })
  if (error !== undefined) throw error
  const found = stdout
    .split("\n")
    .filter((line) => /^\S.*error TS/.test(line))
    .map((line) => {
      const [, file, at] = /^(.+)\((\d+),\d+\)/.exec(line) ?? []
      if (file?.endsWith(name) !== true) throw new Error(line)
      return Number(at)
    })
  return [...new Set(found)].toSorted((a, b) => a - b)
}

describe("mistakes that must not compile", () => {
  test("there are 47, with different comments", () => {
    expect(mistakes).toHaveLength(47)
    expect(new Set(mistakes.map(({ comment }) => comment)).size).toBe(47)
  })

  test("each is an error on the line below its directive, and no other line is an error", { timeout: 60_000 }, () => {
    // within node_modules, so that imports are found and no configuration includes the file
    const folder = join(root, `node_modules/.cache/mistakes-${process.pid}`)
    mkdirSync(folder, { recursive: true })
    try {
      const code = lines.map((line) => (directive.test(line) ? "" : line.replace('from "../../', `from "${root}/`)))
      writeFileSync(join(folder, "mistakes.ts"), code.join("\n"))
      expect(errorsOf(folder, "mistakes.ts")).toEqual(mistakes.map(({ line }) => line))
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})

test("the examples of mistakes.ts run", async () => {
  // importing the module runs them
  const { mistakes: never } = await import("./mistakes.ts")
  expect(never).toBeTypeOf("function")
})
