// Every public name has its docstring, its members and options have theirs, and the examples in docstrings compile. Asks TypeScript itself.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { API, type Checker, type Program, type Symbol, SymbolFlags, type Type } from "typescript/unstable/sync"
import { afterAll, beforeAll, describe, expect, test } from "vitest"

const root = join(import.meta.dirname, "../..")
const source = join(root, "src")
const entries = {
  millrace: "index.ts",
  "millrace/system": "system/index.ts",
  "millrace/testing": "testing/testing.ts"
}

interface Compiled {
  readonly checker: Checker
  readonly program: Program
}
const scratch = mkdtempSync(join(root, ".readme-"))
const compile = (api: API, config: string): Compiled => {
  const project = api.updateSnapshot({ openProjects: [config] }).getProject(config)
  if (project === undefined) throw new Error(`TypeScript does not open ${config}`)
  return project
}

/** Public names and members of ours that have no docstring, by their path from the module, and how many were looked at. */
const undocumentedOf = ({ checker, program }: Compiled, module: string, file: string) => {
  const missing: Array<string> = []
  const seen = new Set<string>()
  const declarationsOf = (symbol: Symbol) => symbol.declarations.filter(({ path }) => path.startsWith(`${source}/`))
  /** A value and a type of one name are declared apart, and editors show the docstring of the one that is used. */
  const lacksOne = (symbol: Symbol): boolean => {
    if (symbol.getDocumentationComment(checker).trim() === "") return true
    if (declarationsOf(symbol).length < 2 || (symbol.flags & SymbolFlags.Value) === 0) return false
    return declarationsOf(symbol).some(({ path }) => {
      const text = program.getSourceFile(path)?.text ?? ""
      const declared = new RegExp(`^export (const|interface|type|class) ${symbol.name}\\b`, "gm")
      return [...text.matchAll(declared)].some(({ index }) => !text.slice(0, index).endsWith("*/\n"))
    })
  }
  const entry = program.getSourceFile(join(source, file))!
  /** TypeScript does not have the docstring of `export * as NAME`. */
  const isDocumentedNamespace = (name: string) => entry.text.includes(`*/\nexport * as ${name} from`)
  const visit = (path: string, given: Symbol, isOption = false): void => {
    const symbol = (given.flags & SymbolFlags.Alias) === 0 ? given : checker.getAliasedSymbol(given)
    const declarations = declarationsOf(symbol)
    const id = declarations.map((one) => `${one.path}:${one.index}`).join()
    // an error's message and cause are Error's
    if (id === "" || seen.has(id) || symbol.name === "message" || symbol.name === "cause") return
    seen.add(id)
    if (lacksOne(symbol) && !isDocumentedNamespace(given.name)) missing.push(path)
    if (isOption) return
    if ((symbol.flags & SymbolFlags.Module) !== 0)
      for (const one of symbol.getExports().values()) visit(`${path}.${one.name}`, one)
    if ((symbol.flags & (SymbolFlags.Interface | SymbolFlags.Class)) !== 0)
      for (const one of symbol.getMembers().values())
        if (!one.name.startsWith("__") && (one.flags & SymbolFlags.TypeParameter) === 0 && !isPrivate(one))
          visit(`${path}.${one.name}`, one)
    if ((symbol.flags & SymbolFlags.TypeAlias) !== 0) members(path, checker.getDeclaredTypeOfSymbol(symbol))
    const valued = SymbolFlags.Variable | SymbolFlags.Property | SymbolFlags.Function | SymbolFlags.Method
    if ((symbol.flags & valued) !== 0) value(path, checker.getTypeOfSymbol(symbol))
  }
  const isPrivate = ({ valueDeclaration }: Symbol): boolean => {
    if (valueDeclaration === undefined) return false
    const node = valueDeclaration.resolve()
    const text = program.getSourceFile(valueDeclaration.path)?.text ?? ""
    return node !== undefined && /^\s*(\/\*\*[\s\S]*?\*\/\s*)?private\s/.test(text.slice(node.pos, node.end))
  }
  const members = (path: string, type: Type, isOption = false): void => {
    for (const one of checker.getPropertiesOfType(type)) visit(`${path}.${one.name}`, one, isOption)
  }
  const isOurs = (type: Type): boolean => {
    const symbol = type.getSymbol()
    return symbol !== undefined && declarationsOf(symbol).length > 0
  }
  /** The options that functions take, and the members of objects. */
  const value = (path: string, type: Type | undefined): void => {
    if (type === undefined) return
    for (const signature of checker.getSignaturesOfType(type, 0))
      for (const parameter of signature.getParameters()) {
        const given = checker.getTypeOfSymbol(parameter)
        const parts =
          given?.isIntersectionType() === true ? (given.getTypes() ?? []) : given === undefined ? [] : [given]
        for (const part of parts) if (isOurs(part)) members(`${path}(${parameter.name})`, part, true)
      }
    const flags = type.getSymbol()?.flags ?? 0
    if (isOurs(type) && (flags & (SymbolFlags.TypeLiteral | SymbolFlags.ObjectLiteral)) !== 0) members(path, type)
  }
  for (const one of checker.getExportsOfModule(checker.getSymbolAtLocation(entry)!))
    visit(`${module}: ${one.name}`, one)
  return { missing, seen: seen.size }
}

/** An example of a docstring: where it is, and its code. */
interface Example {
  readonly file: string
  readonly line: number
  readonly code: string
}
const examples: ReadonlyArray<Example> = readdirSync(source, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .flatMap((name) => {
    const text = readFileSync(join(source, name), "utf8")
    return [...text.matchAll(/^[ \t]*\* ```ts\n([\s\S]*?)\n[ \t]*\* ```/gm)].map(({ 1: code = "", index }) => ({
      file: `src/${name.replaceAll("\\", "/")}`,
      line: text.slice(0, index).split("\n").length,
      code: code.replaceAll(/^[ \t]*\* ?/gm, "")
    }))
  })
const effects = ["Effect", "Schema", "Schedule", "Layer", "Stream", "DateTime"]
/** A module with an example in it: whatever the example does not declare is imported. Names that examples share are in example-names.ts. */
const moduleOf = ({ code }: Example, names: ReadonlyMap<string, ReadonlyArray<string>>): string => {
  const declared = new Set([...code.matchAll(/\b(?:const|class) (\w+)/g)].map(([, name = ""]) => name))
  const imports = [...names].map(([module, all]) => {
    const free = all.filter((name) => !declared.has(name) && new RegExp(`\\b${name}\\b`).test(code))
    return free.length === 0 ? "" : `import { ${free.join(", ")} } from "${module}"\n`
  })
  const namespaces = effects.filter((name) => new RegExp(`\\b${name}\\.`).test(code))
  const head = [...imports, ...namespaces.map((name) => `import * as ${name} from "effect/${name}"\n`)].join("")
  if (!code.includes("yield*")) return `${head}${code}\nexport {}\n`
  const effect = head.includes('"effect/Effect"') ? "" : 'import * as Effect from "effect/Effect"\n'
  return `${head}${effect}export const example = Effect.gen(function* () {\n${code}\n})\n`
}

let api: API
let ours: Compiled
beforeAll(() => {
  api = new API({ cwd: root })
  ours = compile(api, join(root, "tsconfig.build.json"))
})
afterAll(() => {
  api.close()
  rmSync(scratch, { recursive: true, force: true })
})

describe("docstrings", () => {
  test.for(Object.entries(entries))("every name, member and option of %s has one", ([module, file]) => {
    const { missing, seen } = undocumentedOf(ours, module, file)
    expect(missing).toEqual([])
    expect(seen).toBeGreaterThan(40)
  })

  test("their examples compile", () => {
    const names = new Map<string, ReadonlyArray<string>>()
    for (const [module, file] of [...Object.entries(entries), ["../test/types/example-names.ts", ""] as const]) {
      const path = file === "" ? join(import.meta.dirname, "example-names.ts") : join(source, file)
      const text = readFileSync(path, "utf8")
      const listed = [...text.matchAll(/^export (?:type )?(?:const|class|interface|type|\* as) (\w+)/gm)]
      const exported = [...text.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].flatMap(([, all = ""]) => all.split(","))
      const aliased = exported.map((one) =>
        one
          .trim()
          .replace(/^type /, "")
          .replace(/^.* as /, "")
      )
      names.set(file === "" ? module : join(source, file), [
        ...new Set([...listed.map(([, name = ""]) => name), ...aliased].filter((name) => name !== ""))
      ])
    }
    for (const [i, example] of examples.entries())
      writeFileSync(join(scratch, `example-${i}.ts`), moduleOf(example, names))
    const config = join(scratch, "tsconfig.json")
    const compilerOptions = { verbatimModuleSyntax: false }
    writeFileSync(config, JSON.stringify({ extends: "../tsconfig.json", compilerOptions, include: ["*.ts"] }))
    const { program } = compile(api, config)
    const problems = examples.flatMap(({ file, line }, i) =>
      [
        ...program.getSyntacticDiagnostics(join(scratch, `example-${i}.ts`)),
        ...program.getSemanticDiagnostics(join(scratch, `example-${i}.ts`))
      ].map(({ text }) => `${file}:${line}: ${text}`)
    )
    expect(problems).toEqual([])
    expect(examples.length).toBeGreaterThan(20)
  })
})
