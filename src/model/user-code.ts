// Functions that users write in declarations: they are synchronous, and nothing that they return may be lost. Pure.
import * as Effect from "effect/Effect"

/** A function of a declaration returned what is not waited for, so that its work or its failure would be lost. */
export class RefusedResult extends Error {
  override readonly name = "RefusedResult"
}

const never = () => undefined
/** Keeps the rejection of a promise that nothing waits for from ending the process. Runs no `then` of the value's own: it may start work. */
const ignoreRejection = (value: unknown): void => {
  if (Array.isArray(value)) for (const one of value) ignoreRejection(one)
  if (!(value instanceof Promise)) return
  try {
    void Promise.prototype.then.call(value, never, never)
  } catch {
    // a subclass that cannot be constructed again; a rejection of it is logged as any other
  }
}
const hasFunction = (value: unknown, name: PropertyKey): boolean =>
  value !== null &&
  (typeof value === "object" || typeof value === "function") &&
  typeof (value as Readonly<Record<PropertyKey, unknown>>)[name] === "function"
const isThenable = (value: unknown): boolean => hasFunction(value, "then")

/** What a value is, as a sentence has it. */
const describe = (value: unknown): string => {
  if (isThenable(value)) return "a promise"
  if (hasFunction(value, "next") && hasFunction(value, Symbol.asyncIterator)) return "an async generator"
  if (hasFunction(value, "next") && hasFunction(value, Symbol.iterator)) return "a generator"
  if (Array.isArray(value)) return "an array"
  return typeof value === "function" ? "a function" : "an object that is no Effect"
}

const kinds: Readonly<Record<string, string>> = {
  AsyncFunction: "an async function",
  GeneratorFunction: "a generator function",
  AsyncGeneratorFunction: "an async generator function"
}
/** The kind of a function whose result needs to be waited for or iterated; undefined for others. */
const lazyKind = (value: unknown): string | undefined =>
  typeof value === "function" ? kinds[Object.prototype.toString.call(value).slice(8, -1)] : undefined

const synchronous = "write a synchronous function; a projection's handler can wait, in the Effect that it returns"

/** Throws an `Error` if a function is declared `async` or as a generator. Other values, and undefined, pass. `what` begins the message. */
export const assertSync = (what: string, value: unknown, remedy = synchronous): void => {
  const kind = lazyKind(value)
  if (kind !== undefined) throw new Error(`${what} is ${kind}, and nothing would wait for its result; ${remedy}`)
}
/** Returns what a synchronous function returned. Throws `RefusedResult` if that is a promise, which nothing would wait for. */
export const syncResult = <A>(what: string, value: A, remedy = synchronous): A => {
  if (value === null || (typeof value !== "object" && typeof value !== "function") || !isThenable(value)) return value
  ignoreRejection(value)
  throw new RefusedResult(`${what} returned a promise, and nothing would wait for it; ${remedy}`)
}
/** Throws an `Error` unless a value is a function that can be called: a class cannot. `what` begins the message. */
export const assertFunction = (what: string, value: unknown): void => {
  if (typeof value !== "function") throw new Error(`${what} is ${typeof value}; it must be a function`)
  if (/^class\b/.test(Function.prototype.toString.call(value)))
    throw new Error(`${what} is a class; it must be a function`)
}
/** The same function, which throws `RefusedResult` if it returns a promise. Throws an `Error` if it is declared `async` or as a generator. */
export const checkedFunction = <A extends ReadonlyArray<never>, B>(
  what: string,
  run: (...args: A) => B,
  remedy?: string
): ((...args: A) => B) => {
  assertFunction(what, run)
  assertSync(what, run, remedy)
  return (...args) => syncResult(what, run(...args), remedy)
}

const returnsEffect = "return an Effect: Effect.promise(() => …), or Effect.gen(function* () { … })"
/** Throws an `Error` if a handler is no function, or is declared `async` or as a generator. `what` begins the message. */
export const assertHandler = (what: string, handler: unknown): void => {
  assertFunction(what, handler)
  assertSync(what, handler, returnsEffect)
}
/**
 * Returns the Effect that a handler returned; undefined if it returned none. Throws `RefusedResult` for promises, generators, functions and
 * all other objects: what they would do is lost. Numbers, texts and the like are what an arrow function returns by accident, and are ignored.
 */
export const handlerResult = (value: unknown): Effect.Effect<unknown, unknown, unknown> | undefined => {
  if (value === null || (typeof value !== "object" && typeof value !== "function")) return undefined
  if (Effect.isEffect(value)) return value as Effect.Effect<unknown, unknown, unknown>
  ignoreRejection(value)
  throw new RefusedResult(
    `the handler returned ${describe(value)}, and what that does would be lost; return nothing, or ${returnsEffect}`
  )
}
