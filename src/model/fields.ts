// Schemas by field name, and the small types and helpers that every declaration uses. Pure.
import type * as Schema from "effect/Schema"
import { checkedFunction } from "./user-code.ts"

/** Flattens an intersection, so that hovering over a type shows its fields. */
export type Simplify<A> = { [K in keyof A]: A[K] } & {}
/** Schemas by field name. They need no services, so that decoding is a plain function. */
export type Fields = {
  readonly [name: string]: Schema.Constraint & { readonly DecodingServices: never; readonly EncodingServices: never }
}
/** The decoded type of `Fields`. */
export type TypeOf<F extends Fields> = Schema.Struct.Type<F>
/** A value that carries its event type's name. */
export type Named = { readonly type: string }
/** The member of a union of events whose type is `Type`. */
export type Member<Ev, Type> = Extract<Ev, { readonly type: Type }>
/** The names of fields that every member of `A` has with values of type `V`. */
export type CommonField<A, V> = { [K in keyof A]: A[K] extends V ? K : never }[keyof A] & string
/** How to get a `V` from a value: the name of a field, or a function. */
export type Select<A, V> = CommonField<A, V> | ((value: A) => V)
/** One value or several. */
export type OneOrMore<A> = A | readonly [A, ...ReadonlyArray<A>]
/** The element of an array, or the value itself. */
export type One<A> = A extends ReadonlyArray<infer B> ? B : A

const given = new WeakMap<object, unknown>()
/** Remembers what a user gave where a declaration keeps a function. Returns the function. */
export const remember = <F extends object>(kept: F, value: unknown): F => {
  given.set(kept, value)
  return kept
}
/** What a user gave where a declaration keeps this function: the name of a field, or a function. The function itself if nothing else is known. */
export const givenFor = (kept: object): unknown => given.get(kept) ?? kept

/**
 * The function that a `Select` stands for. `what` names it in errors: one that is declared `async` or as a generator is refused, and one that
 * returns a promise throws.
 */
export const select = (what: string, by: string | ((value: never) => unknown)): ((value: never) => never) =>
  remember(typeof by === "function" ? (checkedFunction(what, by) as never) : (value: never) => value[by], by)

/** One value or several, as an array. */
export const list = <A>(input: OneOrMore<A>): ReadonlyArray<A> => (Array.isArray(input) ? input : [input as A])

/**
 * The text of a key of several columns: the value itself if there is one column, else the JSON array of the values. Different keys have
 * different texts.
 */
export const keyText = (columns: ReadonlyArray<string>, row: Readonly<Record<string, unknown>>): string =>
  columns.length === 1 ? String(row[columns[0]!]) : JSON.stringify(columns.map((column) => row[column]))
