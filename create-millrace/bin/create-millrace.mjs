#!/usr/bin/env node
// `npm create millrace@latest DIR`: the same as `millrace init DIR`, without installing Millrace first.
import { existsSync, readFileSync } from "node:fs"
import { parseArgs } from "node:util"

const usage = `npm create millrace@latest DIR [-- options]

Creates an application that runs and passes its tests, with sample events, in the folder DIR, and installs it.

  --deno         for Deno instead of Node
  --name NAME    the name of the application; default: the name of the folder
  --no-install   do not install the packages that the application depends on
  --version      print the version
  --help         print this text`

const fail = (message, advice) => {
  console.error(`create-millrace: ${message}\ntry: ${advice}`)
  process.exit(2)
}
const parse = () => {
  const flag = { type: "boolean", default: false }
  const options = { deno: flag, name: { type: "string" }, "no-install": flag, version: flag, help: flag }
  try {
    return parseArgs({ options, allowPositionals: true })
  } catch (error) {
    return fail(error.message, "npm create millrace@latest -- --help")
  }
}

const { positionals, values } = parse()
const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"))
const [directory] = positionals

if (values.help) console.log(usage)
else if (values.version) console.log(version)
else if (positionals.length !== 1)
  fail(
    directory === undefined ? "name the folder to create" : `name one folder, not ${positionals.length}`,
    "npm create millrace@latest my-app"
  )
else {
  // a checkout has the code of `millrace init` beside this package, the package has it built
  const source = new URL("../../src/cli/create.ts", import.meta.url)
  const code = existsSync(source) ? source : new URL("../dist/cli/create.js", import.meta.url)
  const { create } = await import(code.href)
  const options = { directory, name: values.name, deno: values.deno, install: !values["no-install"], version }
  await create(options, (text) => console.log(text)).catch((error) => {
    if (error.name === "CannotCreate") fail(error.message, error.try)
    console.error(`create-millrace: cannot create ${directory}: ${error.message}`)
    process.exit(1)
  })
}
