// Boundaries over tags: seats of courses that students take, and transfers between accounts that a third account answers for, which is only read.
// The events must have an order in which each was decided on exactly those before it, and in that order no limit is ever exceeded.
import type { Random } from "../../support/random.ts"
import { commandOf, type Concern, type ConcernRun, eventsOf, noteExecuted, sendRepeatedly } from "./concern.ts"
import type { Decide } from "./messages.ts"

const [seats, courses] = [20, 5]
const noMost = 1_000_000

interface DecidedEvent {
  readonly id: string
  readonly changes: Readonly<Record<string, number>>
  readonly saw: Readonly<Record<string, number>>
}

const requestOf = (id: string, random: Random, prefix: string, size: number): Decide => {
  const desk = `d${random.int(1, 8)}`
  const name = (kind: string, most: number) => `${prefix}-${kind}-${random.int(1, most)}`
  if (random.chance(0.4)) {
    const tags = [name("course", size), name("student", size * 3)] as const
    const limits = tags.map((tag, i) => ({ tags: [tag], least: 0, most: i === 0 ? seats : courses }))
    return { kind: "decide", id, desk, changes: { [tags[0]]: 1, [tags[1]]: 1 }, reads: tags, limits }
  }
  const from = name("account", size)
  if (random.chance(0.3)) return { kind: "decide", id, desk, changes: { [from]: 5 }, reads: [from], limits: [] }
  const [to, guarantor] = [name("account", size), name("account", size)]
  const amount = random.int(1, 9)
  const changes = from === to ? { [from]: 0 } : { [from]: -amount, [to]: amount }
  // together they must not owe anything
  const limits = [{ tags: [...new Set([from, guarantor])], least: 0, most: noMost }]
  return { kind: "decide", id, desk, changes, reads: [...new Set([from, to, guarantor])], limits }
}

/**
 * Orders events so that each comes after exactly those events of its tags that it saw. Calls `take` in that order, and returns those that have no
 * place in it.
 */
const inOrder = (
  events: ReadonlyArray<DecidedEvent>,
  take: (event: DecidedEvent) => void
): ReadonlyArray<DecidedEvent> => {
  const counts = new Map<string, number>()
  const left = new Set(events)
  const countOf = (tag: string) => counts.get(tag) ?? 0
  // how many events of those that are left saw a tag with so many events
  const readers = new Map<string, number>()
  const read = ({ saw }: DecidedEvent, by: number) => {
    for (const [tag, n] of Object.entries(saw)) readers.set(`${tag} ${n}`, (readers.get(`${tag} ${n}`) ?? 0) + by)
  }
  for (const event of events) read(event, 1)
  const isNext = ({ changes, saw }: DecidedEvent) =>
    Object.entries(saw).every(([tag, n]) => n === countOf(tag)) &&
    // another event that saw the same of a tag which this one changes comes before it
    Object.keys(changes).every((tag) => readers.get(`${tag} ${countOf(tag)}`) === 1)
  while (true) {
    const next = [...left].find(isNext)
    if (next === undefined) return [...left]
    left.delete(next)
    read(next, -1)
    take(next)
    for (const tag of Object.keys(next.changes)) counts.set(tag, countOf(tag) + 1)
  }
}

/** Decisions over tags. `size`: how many courses and accounts there are. */
export const boundaries = (run: ConcernRun, prefix: string, size: number): Concern => {
  const asked = new Map<string, { readonly request: Decide; readonly isExecuted: boolean }>()
  return {
    hasWorkers: false,
    step: async (id, random) => {
      const request = requestOf(id, random, prefix, size)
      const replies = await sendRepeatedly(run, request, random)
      asked.set(id, { request, isExecuted: noteExecuted(run, id, replies) })
    },
    compare: async () => {
      const { differences } = run
      const events = (await eventsOf(run, "desk"))
        .map(({ event_id, value }): DecidedEvent => {
          const { changes, saw } = JSON.parse(value) as Pick<DecidedEvent, "changes" | "saw">
          return { id: commandOf(event_id), changes, saw }
        })
        .filter(({ id }) => asked.has(id))
      const found = new Map<string, number>()
      for (const { id } of events) found.set(id, (found.get(id) ?? 0) + 1)
      for (const [id, { isExecuted }] of asked) {
        const n = found.get(id) ?? 0
        if (isExecuted && n === 0) differences.add("lost", `the event of ${id}`)
        if (isExecuted && n > 1) differences.add("doubled", `${n} events of ${id}`)
        if (!isExecuted && n > 0) differences.add("wrong", `${n} events of ${id}, which was not executed`)
      }
      const sums = new Map<string, number>()
      const rest = inOrder(events, ({ changes, id }) => {
        for (const [tag, amount] of Object.entries(changes)) sums.set(tag, (sums.get(tag) ?? 0) + amount)
        for (const { least, most, tags } of asked.get(id)!.request.limits) {
          const sum = tags.reduce((all, tag) => all + (sums.get(tag) ?? 0), 0)
          if (sum < least || sum > most)
            differences.add("wrong", `${id} brought ${tags.join(" and ")} to ${sum}, outside of ${least} to ${most}`)
        }
      })
      if (rest.length > 0)
        differences.add(
          "wrong",
          `${rest.length} decisions on a state that never was, as ${JSON.stringify(rest[0])}`,
          rest.length
        )
    }
  }
}
