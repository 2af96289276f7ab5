// The pages are code, too: their TypeScript compiles, what is marked `ts run` runs, and every command, option, file and heading that they name exists.
import { spawnSync } from "node:child_process"
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { basename, dirname, join, posix } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, describe, expect, test } from "vitest"

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
const read = (path: string) => readFileSync(join(root, path), "utf8")

interface Block {
  readonly language: string
  readonly marks: ReadonlyArray<string>
  readonly code: string
  readonly line: number
}

const blocksOf = (markdown: string): Array<Block> =>
  [...markdown.matchAll(/^( *)(`{3,})([^\n`]*)\n([\s\S]*?)^\1\2 *$/gm)].map((match) => {
    const [, indent = "", , info = "", code = ""] = match
    const [language = "", ...marks] = info.trim().split(/\s+/)
    const line = markdown.slice(0, match.index).split("\n").length
    return { language, marks, code: code.replaceAll(new RegExp(`^${indent}`, "gm"), ""), line }
  })

/** The file that a block is a part of, as its mark `file=NAME` says; undefined if it is a file of its own. Parts stand in their order. */
const fileMarkOf = ({ marks }: Block): string | undefined =>
  marks.find((mark) => mark.startsWith("file="))?.slice("file=".length)

/** Commands of shell blocks, and commands in running text that stand in `code`. Prompts, comments and output are left out. */
const commandsOf = (markdown: string): Array<string> => {
  const lines = blocksOf(markdown)
    .filter((block) => /^(sh|bash|shell|console)$/.test(block.language))
    .flatMap((block) => block.code.replaceAll("\\\n", " ").split("\n"))
  const prose = markdown.replaceAll(/^( *)(`{3,})[\s\S]*?^\1\2 *$/gm, "")
  const spans = [...prose.matchAll(/`([^`\n]+)`/g)].map((match) => match[1] ?? "")
  return [...lines, ...spans]
    .flatMap((line) =>
      line
        .replace(/^\s*\$ /, "")
        .replace(/\s#.*$/, "")
        .split(/&&|\|\||[;|]/)
    )
    .map((command) => command.trim())
    .filter((command) => /^(npm|npx|deno|node|millrace)\s/.test(command))
}

/** A script of ours on the runtime that runs the tests. */
const run = (args: ReadonlyArray<string>) => {
  const prefix = "deno" in process.versions ? ["run", "-A"] : []
  const { status, stdout, stderr } = spawnSync(process.execPath, [...prefix, ...args], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
    timeout: 60_000
  })
  return { status, output: stdout + stderr }
}

const helps = new Map<string, string>()
const help = (command: string): string => {
  const known = helps.get(command)
  if (known !== undefined) return known
  const { status, output } = run(["bin/millrace.mjs", ...command.split(" ").filter(Boolean), "--help"])
  expect(status, output).toBe(0)
  helps.set(command, output)
  return output
}

const names = (text: string, word: string) => new RegExp(`(^|[\\s,|])${word}($|[\\s,|=])`, "m").test(text)

/** A file of the project's root, or of the folder of an example's page. */
const nearest = (name: string, page: string): string => {
  // about the application that it creates
  if (name === "package.json" && page === "create-millrace/README.md") return "templates/app/_package.json"
  const own = posix.join(posix.dirname(page), name)
  return existsSync(join(root, own)) ? own : name
}
/** What is wrong with a command, or nothing. */
const faultOf = (command: string, page = ""): string | undefined => {
  const [program, first = "", ...rest] = command.split(/\s+/)
  const { scripts } = JSON.parse(read(nearest("package.json", page))) as { scripts: Record<string, string> }
  const { tasks } = JSON.parse(read(nearest("deno.json", page))) as { tasks: Record<string, string> }
  if (program === "npm") {
    if (first === "run") return rest[0] !== undefined && rest[0] in scripts ? undefined : "no such script"
    return /^(start|test)$/.test(first) && !(first in scripts) ? "no such script" : undefined
  }
  if (program === "deno") {
    if (first === "task") return rest[0] !== undefined && rest[0] in tasks ? undefined : "no such task"
    if (rest.includes("npm:create-millrace")) return undefined
    const millrace = rest.indexOf("npm:millrace")
    if (millrace !== -1) return faultOfMillrace(rest.slice(millrace + 1).filter((word) => word !== "…"))
    const file = rest.find((word) => !word.startsWith("-") && !/^(npm|jsr|https?):/.test(word))
    return first !== "run" || file === undefined || existsSync(join(root, file)) ? undefined : "no such file"
  }
  if (program === "node") return first.startsWith("-") || existsSync(join(root, first)) ? undefined : "no such file"
  const words = program === "millrace" ? [first, ...rest] : first === "millrace" ? rest : undefined
  return words === undefined ? undefined : faultOfMillrace(words.filter((word) => word !== "…" && word !== "..."))
}

const faultOfMillrace = (words: ReadonlyArray<string>): string | undefined => {
  const [command = "", second = ""] = words
  const isName = (word: string) => /^[a-z][a-z-]*$/.test(word)
  if (isName(command) && !names(help(""), command)) return "no such command"
  const isNested = isName(command) && isName(second) && /SUBCOMMANDS|COMMANDS/.test(help(command))
  if (isNested && !names(help(command), second)) return "no such command"
  const text = help(isNested ? `${command} ${second}` : isName(command) ? command : "")
  return (
    words
      .filter((word) => /^--[a-z]/.test(word))
      .map((word) => word.replace(/=.*/, ""))
      .filter((option) => !names(text, option))
      .map((option) => `no option ${option}`)
      .join(", ") || undefined
  )
}

/** The files in a folder and below, without what is installed there. */
const filesIn = (folder: string): Array<string> =>
  existsSync(join(root, folder))
    ? readdirSync(join(root, folder), { withFileTypes: true })
        .filter(({ name }) => name !== "node_modules" && name !== ".millrace")
        .flatMap((entry) => (entry.isDirectory() ? filesIn(`${folder}/${entry.name}`) : `${folder}/${entry.name}`))
    : []

/** Every page beside the README. */
const pages = ["docs", "bench", "aggregates", "projections", "examples", "create-millrace"]
  .flatMap(filesIn)
  .concat("CHANGELOG.md", "CONTRIBUTING.md")
  .filter((path) => path.endsWith(".md") && existsSync(join(root, path)))

/** The names that a page's headings have in links, as GitHub makes them. */
const anchorsOf = (markdown: string): ReadonlySet<string> =>
  new Set(
    [...markdown.matchAll(/^#{1,6} (.+)$/gm)].map(([, heading = ""]) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-")
    )
  )

/** Links of a page to files that are not there, or to headings that their page does not have. Links to the web are not followed. */
const deadLinksOf = (page: string): Array<string> =>
  [...read(page).matchAll(/\]\((?!https?:|mailto:)([^)\s]+)\)/g)]
    .map(([, link = ""]) => link)
    .filter((link) => {
      const [path = "", heading] = link.split("#")
      const file = path === "" ? page : posix.join(posix.dirname(page), path)
      if (!existsSync(join(root, file))) return true
      return heading !== undefined && !anchorsOf(read(file)).has(heading)
    })

/** The lines of code that count when an excerpt is looked for: not imports, whose paths differ, nor blank ones. */
const linesOf = (code: string) =>
  code
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("import "))

const isExcerpt = (code: string): boolean =>
  ["projections", "aggregates", "examples"]
    .flatMap(filesIn)
    .filter((path) => path.endsWith(".ts"))
    .some((path) => `\n${linesOf(read(path)).join("\n")}\n`.includes(`\n${linesOf(code).join("\n")}\n`))

/** The TypeScript of each page that is its own, in a folder of its own beside the projections that it may import. */
const scratch = mkdtempSync(join(root, ".readme-"))
afterAll(() => {
  for (const { folder } of [...code, { folder: scratch }]) rmSync(folder, { recursive: true, force: true })
})
const code = ["README.md", ...pages].map((page, number) => {
  const blocks = blocksOf(read(page)).filter((block) => /^(ts|typescript)$/.test(block.language))
  const folder = `${scratch}-${number}`
  return {
    page,
    folder,
    own: blocks.filter((block) => block.marks.includes("run") || !isExcerpt(block.code)),
    running: blocks.filter((block) => block.marks.includes("run")),
    fileOf: (block: Block) => join(folder, fileMarkOf(block) ?? `line-${block.line}.ts`)
  }
})
let compiled: ReadonlyArray<string> | undefined
/** What the compiler says of the pages' code: all of it is compiled at once, when it is first asked for. */
const compilerErrors = (): ReadonlyArray<string> => {
  if (compiled !== undefined) return compiled
  for (const { fileOf, folder, own } of code) {
    mkdirSync(folder)
    for (const block of own) appendFileSync(fileOf(block), `${block.code}\nexport {}\n`)
  }
  const files = code.flatMap(({ fileOf, own }) => own.map(fileOf))
  writeFileSync(
    join(scratch, "tsconfig.json"),
    JSON.stringify({ extends: "../tsconfig.json", include: [], files: [...new Set(files)] })
  )
  const { output, status } = run(["node_modules/typescript/bin/tsc", "--noEmit", "-p", join(scratch, "tsconfig.json")])
  compiled = output.split("\n").filter((line) => line.includes("error TS"))
  expect(status === 0 || compiled.length > 0, output).toBe(true)
  return compiled
}

describe.each(code)("$page", ({ fileOf, folder, own, page, running }) => {
  const text = read(page)

  if (own.length > 0) {
    test("its TypeScript compiles, or is an excerpt of the reference application or an example", () => {
      const path = `${basename(folder)}/`
      expect(compilerErrors().filter((line) => line.startsWith(path))).toEqual([])
    }, 240_000)
  }

  for (const block of running) {
    test(`its code that is marked to run runs (line ${block.line})`, () => {
      compilerErrors()
      const { status, output } = run([fileOf(block)])
      expect(status, output).toBe(0)
    }, 240_000)
  }

  if (!page.startsWith("docs/decisions/")) {
    test("its commands and options exist", () => {
      const faults = commandsOf(text).map((command) => [command, faultOf(command, page)])
      expect(faults.filter(([, fault]) => fault !== undefined)).toEqual([])
    }, 240_000)
  }

  test("its links to files and to headings lead somewhere", () => expect(deadLinksOf(page)).toEqual([]))
})

test("the README shows TypeScript and how to start", () => {
  expect(blocksOf(read("README.md")).some(({ language }) => language === "ts")).toBe(true)
  expect(commandsOf(read("README.md"))).toContain("npm start")
})

describe("the checks themselves", () => {
  const sample =
    "# T\n```ts run\nconst a = 1\n```\ntext `npm run bench`\n```sh\n$ npm ci && npm start # go\nnpx millrace dev \\\n  --once\n```\n"

  test("blocks keep their language, marks and line", () => {
    expect(blocksOf(sample).map(({ language, marks, line }) => ({ language, marks, line }))).toEqual([
      { language: "ts", marks: ["run"], line: 2 },
      { language: "sh", marks: [], line: 6 }
    ])
  })

  test("commands are found in blocks and in text", () => {
    expect(commandsOf(sample)).toEqual(["npm ci", "npm start", "npx millrace dev    --once", "npm run bench"])
  })

  test("what does not exist is found", () => {
    expect(faultOf("npm run no-such-script")).toBe("no such script")
    expect(faultOf("deno task no-such-task")).toBe("no such task")
    expect(faultOf("node bench/no-such-file.ts")).toBe("no such file")
    expect(faultOf("npm ci")).toBeUndefined()
    expect(faultOf("npx millrace no-such-command")).toBe("no such command")
    expect(faultOf("npx millrace dev --no-such-option")).toBe("no option --no-such-option")
    expect(faultOf("deno run -A npm:millrace no-such-command")).toBe("no such command")
  })
})
