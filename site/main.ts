// `npm run docs`: builds the documentation site into site/dist and checks its links. Its generators are installed on first use, beside this file.
import { spawn, spawnSync } from "node:child_process"
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { readdirSync } from "node:fs"
import { dirname, join } from "node:path"
import { parseArgs } from "node:util"
import { makeApiPages } from "./api.ts"
import { deadLinksOf, htmlIn } from "./check.ts"
import { images, pages, root, sections, sourcePage, sourcePageOf, sources, unlisted } from "./pages.ts"

const usage = `npm run docs -- [--serve] [--port 4173] [--base /] [--repository URL] [--browser]

  --serve       serves the site afterwards, on this machine only
  --base        the path at which the site will be served: /, or a path such as /millrace/
  --repository  the address at which source files can be read, such as https://host/owner/millrace/blob/main/; without it, the site shows them itself
  --browser     looks at every page in Chromium, as wide as a phone; CHROMIUM names the program
`
const options = {
  serve: { type: "boolean", default: false },
  port: { type: "string", default: "4173" },
  base: { type: "string", default: "/" },
  repository: { type: "string" },
  browser: { type: "boolean", default: false },
  help: { type: "boolean", default: false }
} as const
const here = import.meta.dirname
const content = join(here, ".content")
const dist = join(here, "dist")
const write = (page: string, text: string) => {
  mkdirSync(dirname(join(content, page)), { recursive: true })
  writeFileSync(join(content, page), text)
}

const install = () => {
  const lock = readFileSync(join(here, "package-lock.json"), "utf8")
  const installed = join(here, "node_modules/.installed")
  if (existsSync(installed) && readFileSync(installed, "utf8") === lock) return
  process.stderr.write("installing the generators of the site\n")
  const flags = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]
  const { status } = spawnSync("npm", flags, { cwd: here, stdio: ["ignore", "inherit", "inherit"] })
  if (status !== 0) throw new Error("the generators of the site could not be installed")
  writeFileSync(installed, lock)
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
const seconds = (since: number) => ((Date.now() - since) / 1000).toFixed(1)

const main = async () => {
  const { values } = parseArgs({ options })
  if (values.help) return void process.stdout.write(usage)
  const { base, port, repository } = values
  if (repository !== undefined && !/^https?:.*\/$/.test(repository))
    throw new Error(`--repository is ${repository}; it must be an http address that ends with a slash`)
  if (!/^\/([\w.-]+\/)*$/.test(base)) throw new Error(`--base is ${base}; it must begin and end with a slash`)
  install()
  const start = Date.now()
  collect(base)
  const collected = seconds(start)
  const env = {
    ...process.env,
    MILLRACE_DOCS_BASE: base,
    ...(repository === undefined ? {} : { MILLRACE_DOCS_REPOSITORY: repository })
  }
  build(env)
  const problems = [
    ...deadLinksOf(dist, base),
    ...unlisted.map((file) => `${file} is in no section of docs/README.md; list it there`)
  ]
  const count = htmlIn(dist).length
  process.stdout.write(
    `site/dist: ${count} pages, ${(bytesIn(dist) / 1024 / 1024).toFixed(1)} MiB, in ${seconds(start)} s, of which the API's pages took ${collected} s\n`
  )
  if (problems.length > 0) {
    process.stderr.write(`${problems.join("\n")}\n${problems.length} problems\n`)
    process.exitCode = 1
  }
  if (values.serve || values.browser) {
    const server = spawn(process.execPath, [vitepress, "preview", here, "--port", port], {
      cwd: here,
      env,
      stdio: values.serve ? "inherit" : "ignore"
    })
    if (!values.browser) return
    const { lookAt } = await import("./browser.ts")
    try {
      const paths = htmlIn(dist)
      const drawn = paths.filter((path) => readFileSync(join(dist, path), "utf8").includes('class="diagram"'))
      const found = await lookAt(`http://localhost:${port}${base}`, paths, drawn)
      process.stdout.write(
        `${found.map((line) => `${line}\n`).join("")}in the browser: ${paths.length} pages, ${drawn.length} with pictures, ${found.length} problems\n`
      )
      if (found.length > 0) process.exitCode = 1
    } finally {
      server.kill()
    }
  }
}
await main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
})
