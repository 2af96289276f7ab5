// Erasure: people write personal texts while they are erased. Nothing of a person is appended after the erasure was answered, and no text can be read.
import { patiently } from "../harness/postgres.ts"
import { Hang } from "../harness/until.ts"
import { type Random, randomOf } from "../../support/random.ts"
import { type Concern, type ConcernRun, eventsOf, noteExecuted, sendRepeatedly } from "./concern.ts"

/** Part of every personal text. */
const secret = "secret-text"

/** People who write, and are erased. `size`: how many of them there are at a time. */
export const erasure = (run: ConcernRun, prefix: string, size: number): Concern => {
  /** The people whose erasure was asked for; the number of their events when it was answered, undefined before. */
  const erased = new Map<string, number | undefined>()
  /** Each erasure lets another person begin. */
  let first = 0
  const { differences } = run
  const personOf = (random: Random) => `${prefix}-person-${first + random.int(1, size)}`
  const eventCounts = async () => {
    const counts = new Map<string, number>()
    for (const { key } of await eventsOf(run, "person")) counts.set(key, (counts.get(key) ?? 0) + 1)
    return counts
  }
  const erase = async (id: string, random: Random) => {
    const person = `${prefix}-person-${++first}`
    erased.set(person, undefined)
    const reply = await run.settle({ kind: "erase", id, person }, random)
    if (reply.kind !== "erased")
      differences.add("wrong", `the erasure of ${person} was answered ${JSON.stringify(reply)}`)
    erased.set(person, (await eventCounts()).get(person) ?? 0)
  }
  return {
    hasWorkers: true,
    step: async (id, random) => {
      if (random.chance(0.05)) return erase(id, random)
      const person = personOf(random)
      const isErased = erased.get(person) !== undefined
      const replies = await sendRepeatedly(run, { kind: "write", id, person, text: `${secret} ${id}` }, random)
      const isExecuted = noteExecuted(run, id, replies)
      if (isErased && isExecuted) differences.add("wrong", `${id} was executed although ${person} was erased`)
      const isRefused = replies.some(({ kind }) => kind === "erased")
      if (isRefused && !erased.has(person))
        differences.add("wrong", `${id} was refused although ${person} was not erased`)
    },
    compare: async () => {
      const {
        services: { name, sql }
      } = run
      const random = randomOf(1)
      const counts = await eventCounts()
      for (const [person, before] of erased) {
        const now = counts.get(person) ?? 0
        if (now !== before) differences.add("wrong", `${person} had ${before} events when erased, and has ${now}`)
        // a process that never had the key, or dropped it
        const reply = await run.settle({ kind: "read", id: `${person}/read`, person }, random)
        const texts = reply.kind === "state" ? reply.texts : []
        if (texts.length !== now || texts.some((text) => text !== "[erased]"))
          differences.add("wrong", `the texts of ${person} are read as ${JSON.stringify(reply)}`)
      }
      const snapshots = await patiently(
        async () => await sql<Array<{ stream: string }>>`select stream from millrace.event_snapshot`
      )
      for (const { stream } of snapshots)
        if (erased.has(stream)) differences.add("wrong", `${stream} has a snapshot, but was erased`)
      const readable = await patiently(
        async () =>
          await sql<Array<{ key: string }>>`select key from millrace.log_record
          where topic = ${`${name}-person`} and value like ${`%${secret}%`}`
      )
      if (readable.length > 0) differences.add("wrong", `${readable.length} events have readable texts`)
      const people = [...counts.keys()]
        .filter((person) => person.startsWith(`${prefix}-`) && !erased.has(person))
        .toSorted()
      let found: ReadonlyArray<string> = []
      const isSame = run.until("rows of those who are not erased", async () => {
        const rows = await patiently(async () => await sql<Array<{ person_id: string }>>`select person_id from written`)
        found = rows.map(({ person_id }) => person_id).filter((person) => person.startsWith(`${prefix}-`))
        return String(found.toSorted()) === String(people)
      })
      await isSame.catch((error: unknown) => {
        if (!(error instanceof Hang)) throw error
        const left = found.filter((person) => erased.has(person))
        const missing = people.filter((person) => !found.includes(person))
        if (left.length > 0) differences.add("wrong", `${left.join(", ")} have rows, but were erased`)
        if (missing.length > 0) differences.add("lost", `the rows of ${missing.join(", ")}`)
      })
    }
  }
}
