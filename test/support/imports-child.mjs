// Imports modules, with `resolveByText` if the first argument is `by-text`, and prints which files that loads, and how often Node was asked for one.
import module from "node:module"
import { resolveByText } from "../../bin/imports.mjs"

module.enableCompileCache()
const [, , how, ...modules] = process.argv
const files = new Set()
let asked = 0
// what is registered later is asked first
module.registerHooks({
  resolve: (specifier, context, next) => {
    asked++
    return next(specifier, context)
  },
  load: (url, context, next) => {
    const loaded = next(url, context)
    files.add(`${loaded.format} ${url}`)
    return loaded
  }
})
if (how === "by-text") resolveByText()
for (const name of modules) await import(name)
process.stdout.write(JSON.stringify({ asked, files: [...files].toSorted() }))
