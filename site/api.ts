// The API's pages: typedoc makes Markdown of the docstrings, and this puts what has one name (its value, its type, its namespace) on one page.
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, posix } from "node:path"

/** A module of the package: its name in imports, its folder in the site, and typedoc's folder. */
const modules = [
  { module: "millrace", folder: "millrace", from: "src", about: "What applications are declared with." },
  {
    module: "millrace/testing",
    folder: "testing",
    from: "src/testing/testing",
    about: "Given, when, then for projections and aggregates, without servers."
  },
  {
    module: "millrace/system",
    folder: "system",
    from: "src/system",
    about: "Running an application, or a part of it, from a program of yours."
  }
]
/** The pages of one module, in groups, as the navigation shows them. */
export interface ApiModule {
  readonly module: string
  readonly folder: string
  readonly groups: ReadonlyArray<{ readonly name: string; readonly names: ReadonlyArray<string> }>
}

interface Part {
  readonly heading: string | undefined
  readonly level: number
  readonly text: string
}
/** Splits Markdown at its headings; what stands in code blocks is no heading. */
const partsOf = (markdown: string): ReadonlyArray<Part> => {
  const parts: Array<{ heading: string | undefined; level: number; text: string }> = []
  let isCode = false
  for (const line of markdown.split("\n")) {
    if (/^\s*```/.test(line)) isCode = !isCode
    const [, marks, heading] = (isCode ? null : /^(#+) (.*)$/.exec(line)) ?? []
    const last = parts.at(-1)
    if (marks !== undefined) parts.push({ heading, level: marks.length, text: "" })
    else if (last === undefined) parts.push({ heading: undefined, level: 0, text: `${line}\n` })
    else last.text += `${line}\n`
  }
  return parts
}
/** What TypeScript's inheritance brings along, and lists of type parameters that have no description. */
const isNoise = ({ heading, text }: Part): boolean =>
  /^(Extends|Extended by|Constructors|Inherited from|Overrides|Implementation of)$/.test(heading ?? "") ||
  (heading === "Type Parameters" && !text.includes("Description"))
const withoutNoise = (parts: ReadonlyArray<Part>): ReadonlyArray<Part> => {
  let dropped = Infinity
  return parts.filter((part) => {
    if (part.level <= dropped) dropped = isNoise(part) ? part.level : Infinity
    return dropped === Infinity
  })
}
/** An error's message is inherited from `Error`, which needs no page. */
const withoutMessage = (parts: ReadonlyArray<Part>): ReadonlyArray<Part> => {
  const at = parts.findIndex(({ heading }) => heading === "Accessors")
  const next = parts.findIndex(({ level }, i) => i > at && level <= 2)
  const members = parts.slice(at + 1, next === -1 ? undefined : next).filter(({ level }) => level === 3)
  return at >= 0 && members.every(({ heading }) => heading === "message" || heading === "cause")
    ? [...parts.slice(0, at), ...(next === -1 ? [] : parts.slice(next))]
    : parts
}
/** Mapped types that the compiler wrote out in full are shortened. */
const shortened = (text: string) =>
  text
    .replaceAll(/\\\{ \\\[K in [^\n]*?\)\\\[K\\\] \\\}/g, "\\{ … \\}")
    .replaceAll(/\{ \[K in [^\n]*?\)\[K\] \}/g, "{ … }")
    .replaceAll(/(\\?\|) `` `\$\{number\} nano` ``.*?`` `\$\{number\} weeks` ``/g, "$1 `Duration`")
    .replaceAll(/^```ts\n\w+: object;\n```\n/gm, "")
    .replaceAll(/\]\(#type-parameter-[^)]*\)/g, "]()")
    .replaceAll(/\[([^\]]*)\]\(\)/g, "$1")
const clean = (markdown: string, by: number): { readonly title: string; readonly text: string } => {
  const [title, ...parts] = withoutMessage(withoutNoise(partsOf(markdown.trim())))
  const isObject = parts.some(({ heading, level }) => heading === "Type Declaration" && level === 2)
  const body = parts.map(({ heading, level, text }) => {
    const marks = "#".repeat(Math.min(6, level + by - (isObject && level > 2 ? 1 : 0)))
    return heading === "Type Declaration" ? text : `${marks} ${heading}\n${text}`
  })
  return { title: title?.heading ?? "", text: shortened([title?.text ?? "", ...body].join("").trim()) }
}

const names = (folder: string): ReadonlyArray<string> =>
  existsSync(folder)
    ? readdirSync(folder)
        .filter((name) => name.endsWith(".md") && name !== "index.md")
        .map((name) => name.slice(0, -".md".length))
    : []
const kinds = ["functions", "variables", "classes", "interfaces", "type-aliases"]
/** Typedoc's files of a module, by the name that they describe. Those of a namespace belong to its name. */
const filesOf = (out: string, from: string): ReadonlyMap<string, ReadonlyArray<string>> => {
  const found = new Map<string, Array<string>>()
  const add = (name: string, file: string) => found.set(name, [...(found.get(name) ?? []), file])
  for (const kind of kinds) for (const name of names(join(out, from, kind))) add(name, `${from}/${kind}/${name}.md`)
  const spaces = `${from}/namespaces`
  for (const space of existsSync(join(out, spaces)) ? readdirSync(join(out, spaces)) : [])
    for (const kind of kinds)
      for (const name of names(join(out, spaces, space, kind))) add(space, `${spaces}/${space}/${kind}/${name}.md`)
  return found
}
/** The first sentence of a page, for lists. */
const summaryOf = (text: string): string => {
  const prose = text
    .replaceAll(/^```[\s\S]*?^```$/gm, "")
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.trim().replaceAll("\n", " "))
    .find((paragraph) => paragraph !== "" && !/^[#|<*]/.test(paragraph))
  return prose === undefined ? "" : (/^.*?[.:](?=\s|$)/.exec(prose)?.[0] ?? prose).replace(/:$/, ".")
}
const titleOf = (name: string, file: string, title: string): string => {
  const space = /namespaces\/([^/]+)\//.exec(file)?.[1]
  if (space !== undefined) return `${space}.${title.replace(/^[^:]*: /, "")}`
  return /\/(interfaces|type-aliases)\//.test(file) ? `The type \`${name}\`` : title
}
const groupOf = (files: ReadonlyArray<string>, text: string): string => {
  if (files.some((file) => file.includes("/classes/")) && /## Extends\n+- .*Error/.test(text)) return "Errors"
  return files.some(
    (file) => /\/(functions|variables|classes)\//.test(file) || /namespaces.*(functions|variables)/.test(file)
  )
    ? "Values"
    : "Types"
}

/** Makes the pages in `content`/api, and returns their list. Throws if typedoc fails. */
export const makeApiPages = (content: string): ReadonlyArray<ApiModule> => {
  const here = import.meta.dirname
  const out = join(here, ".typedoc")
  rmSync(out, { recursive: true, force: true })
  const { status } = spawnSync(process.execPath, [join(here, "node_modules/typedoc/bin/typedoc")], {
    cwd: here,
    stdio: ["ignore", "inherit", "inherit"]
  })
  if (status !== 0) throw new Error(`typedoc failed with exit code ${status}`)

  const all = modules.map((one) => ({ ...one, files: filesOf(out, one.from) }))
  const pageOf = new Map<string, string>()
  for (const { files, folder, from } of all) {
    pageOf.set(`${from}/index.md`, `${folder}/index.md`)
    for (const [name, of] of files)
      for (const file of [...of, `${from}/namespaces/${name}/index.md`]) pageOf.set(file, `${folder}/${name}.md`)
  }
  /** Links between typedoc's files become links between pages; a heading that moved is left out. */
  const relinked = (file: string, text: string) =>
    text.replaceAll(/\]\(([^()\s#]+\.md)(#[^()\s]*)?\)/g, (link, path: string) => {
      const page = pageOf.get(posix.join(posix.dirname(file), path))
      return page === undefined ? link : `](/api/${page})`
    })
  const list = all.map(({ about, files, folder, module }) => {
    const made = [...files].map(([name, of]) => {
      const raw = of.map((file) => readFileSync(join(out, file), "utf8"))
      const sections = of.map((file, i) => {
        const { text, title } = clean(relinked(file, raw[i]!), i === 0 ? 0 : 1)
        return { text, title: titleOf(name, file, title) }
      })
      const text = sections.map((one, i) => (i === 0 ? one.text : `## ${one.title}\n\n${one.text}`)).join("\n\n")
      const use = `\`\`\`ts\nimport ${groupOf(of, raw.join()) === "Types" ? "type " : ""}{ ${name} } from "${module}"\n\`\`\``
      write(join(content, "api", folder, `${name}.md`), `---\noutline: 2\n---\n\n# ${name}\n\n${use}\n\n${text}\n`)
      return { name, group: groupOf(of, raw.join()), summary: summaryOf(sections.map((one) => one.text).join("\n\n")) }
    })
    const groups = ["Values", "Errors", "Types"].map((group) => ({
      name: group,
      members: made.filter((one) => one.group === group).toSorted((a, b) => (a.name < b.name ? -1 : 1))
    }))
    const index = groups
      .filter(({ members }) => members.length > 0)
      .map(
        ({ members, name }) =>
          `## ${name}\n\n${members.map((one) => `- [\`${one.name}\`](/api/${folder}/${one.name}.md): ${one.summary}`).join("\n")}\n`
      )
    write(join(content, "api", folder, "index.md"), `# ${module}\n\n${about}\n\n${index.join("\n")}`)
    return {
      module,
      folder,
      groups: groups
        .filter(({ members }) => members.length > 0)
        .map(({ members, name }) => ({ name, names: members.map((one) => one.name) }))
    }
  })
  const overview = modules.map(({ about, folder, module }) => `- [\`${module}\`](/api/${folder}/index.md): ${about}`)
  write(join(content, "api/index.md"), `# API\n\nEvery name that the package exports.\n\n${overview.join("\n")}\n`)
  return list
}
const write = (file: string, text: string) => {
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text)
}
