// `npm run docs`: builds the documentation site into site/dist and checks its links. Its generators are installed on first use, beside this file.
import { spawn, spawnSync } from "node:child_process"
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { readdirSync } from "node:fs"
import { dirname, join } from "node:path"
import { parseArgs } from "node:util"
import { makeApiPages } from "./api.ts"
import { deadLinksOf, htmlIn } from "./check.ts"
import { images, pages, root, sections, sourcePage, sourcePageOf, sources, unlisted } from "./pages.ts"

const usage = `npm run docs -- [--serve] [--port 4173] [--base /] [--repository URL] [--browser [--built] [--shots FOLDER]]

  --serve       serves the site afterwards, on this machine only
  --base        the path at which the site will be served: /, or a path such as /millrace/
  --repository  the address at which source files can be read, such as https://host/owner/millrace/blob/main/; without it, the site shows them itself
  --browser     looks at the pages in Chromium: as wide as a phone, in light and dark, with axe-core; CHROMIUM names the program
  --built       builds nothing if site/dist is newer than the pages
  --shots       writes screenshots of some pages into a folder
`
const options = {
  serve: { type: "boolean", default: false },
  port: { type: "string", default: "4173" },
  base: { type: "string", default: "/" },
  repository: { type: "string" },
  browser: { type: "boolean", default: false },
  built: { type: "boolean", default: false },
  shots: { type: "string" },
  help: { type: "boolean", default: false }
} as const
const here = import.meta.dirname
const content = join(here, ".content")
const dist = join(here, "dist")
const write = (page: string, text: string) => {
  mkdirSync(dirname(join(content, page)), { recursive: true })
  writeFileSync(join(content, page), text)
}

/** Installs the generators, and with `isWhole` what looks at the site: axe-core, and a Chromium if this machine has none. */
const install = (isWhole: boolean) => {
  const lock = readFileSync(join(here, "package-lock.json"), "utf8")
  const installed = join(here, "node_modules/.installed")
  const is = existsSync(installed) ? readFileSync(installed, "utf8") : ""
  if (is === `${lock}whole` || (is === lock && !isWhole)) return
  process.stderr.write("installing the generators of the site\n")
  const flags = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", ...(isWhole ? [] : ["--omit=dev"])]
  const { status } = spawnSync("npm", flags, { cwd: here, stdio: ["ignore", "inherit", "inherit"] })
  if (status !== 0) throw new Error("the generators of the site could not be installed")
  writeFileSync(installed, isWhole ? `${lock}whole` : lock)
}
/** The pages as they are in the repository, those that are made from other files, and the files that all pages share. */
const collect = (base: string) => {
  rmSync(content, { recursive: true, force: true })
  for (const [file, page] of pages) write(page, readFileSync(join(root, file), "utf8"))
  for (const path of sources) write(`public/${sourcePageOf(path)}`, sourcePage(path, base))
  const first = sections[0]?.pages[0]?.page ?? "pages.md"
  write(
    "index.md",
    readFileSync(join(here, "index.md"), "utf8").replace("@start", `/${first.replace(/\.md$/, ".html")}`)
  )
  write("api.json", JSON.stringify(makeApiPages(content)))
  for (const image of images) cpSync(join(root, image), join(content, "public/files", image))
  cpSync(join(here, "icon.svg"), join(content, "public/icon.svg"))
  const mermaid = join(here, "node_modules/mermaid/dist")
  for (const part of ["mermaid.esm.min.mjs", "chunks/mermaid.esm.min"])
    cpSync(join(mermaid, part), join(content, "public/mermaid", part), {
      recursive: true,
      filter: (file) => !file.endsWith(".map")
    })
}
const vitepress = join(here, "node_modules/vitepress/bin/vitepress.js")
const build = (env: NodeJS.ProcessEnv) => {
  rmSync(dist, { recursive: true, force: true })
  const { status } = spawnSync(process.execPath, [vitepress, "build", here], {
    cwd: here,
    env,
    stdio: ["ignore", "inherit", "inherit"]
  })
  if (status !== 0) throw new Error(`vitepress failed with exit code ${status}`)
}
const bytesIn = (folder: string): number =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((path) => statSync(join(folder, path)))
    .reduce((sum, file) => sum + (file.isFile() ? file.size : 0), 0)
const newestIn = (path: string): number =>
  statSync(path).isFile()
    ? statSync(path).mtimeMs
    : Math.max(
        0,
        ...readdirSync(path)
          .filter((name) => !["node_modules", "dist", ".content", ".typedoc", ".millrace"].includes(name))
          .map((name) => newestIn(join(path, name)))
      )
/** Whether the site was built after its pages, the declarations of the API and its own files last changed. */
const isBuilt = (): boolean =>
  existsSync(join(dist, "index.html")) &&
  [...pages.keys(), ...sources, "src", "site"].every(
    (path) => newestIn(join(root, path)) < statSync(join(dist, "index.html")).mtimeMs
  )
const seconds = (since: number) => ((Date.now() - since) / 1000).toFixed(1)

const main = async () => {
  const { values } = parseArgs({ options })
  if (values.help) return void process.stdout.write(usage)
  const { base, port, repository } = values
  if (repository !== undefined && !/^https?:.*\/$/.test(repository))
    throw new Error(`--repository is ${repository}; it must be an http address that ends with a slash`)
  if (!/^\/([\w.-]+\/)*$/.test(base)) throw new Error(`--base is ${base}; it must begin and end with a slash`)
  install(values.browser)
  const start = Date.now()
  const env = {
    ...process.env,
    MILLRACE_DOCS_BASE: base,
    ...(repository === undefined ? {} : { MILLRACE_DOCS_REPOSITORY: repository })
  }
  if (!(values.built && isBuilt())) {
    collect(base)
    const collected = seconds(start)
    build(env)
    process.stdout.write(
      `site/dist: ${htmlIn(dist).length} pages, ${(bytesIn(dist) / 1024 / 1024).toFixed(1)} MiB, in ${seconds(start)} s, of which the API's pages took ${collected} s\n`
    )
  }
  report([
    ...deadLinksOf(dist, base),
    ...unlisted.map((file) => `${file} is in no section of docs/README.md; list it there`)
  ])
  if (values.browser) {
    const { lookAt } = await import("./browser.ts")
    const looked = Date.now()
    const paths = htmlIn(dist)
    const pictured = paths.filter((path) => readFileSync(join(dist, path), "utf8").includes('class="diagram"'))
    report(await lookAt(dist, base, paths, pictured, values.shots))
    process.stdout.write(
      `in the browser: ${paths.length} pages, ${pictured.length} with pictures, in ${seconds(looked)} s\n`
    )
  }
  if (values.serve)
    spawn(process.execPath, [vitepress, "preview", here, "--port", port], { cwd: here, env, stdio: "inherit" })
}
/** Prints problems, and lets the program exit with 1 if there are some. */
const report = (problems: ReadonlyArray<string>) => {
  if (problems.length === 0) return
  process.stderr.write(`${problems.join("\n")}\n${problems.length} problems\n`)
  process.exitCode = 1
}
await main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
})
