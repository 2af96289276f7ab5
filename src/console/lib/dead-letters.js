// Decides about many dead letters: a dry run says which, and they are sent in parts, so that progress is seen and a stop is possible between two.
import { get, send, withQuery } from "./api.js"
import { counted, number, shellWord } from "./format.js"

export const base = "/v1/operations/dead-letters"
/** The states of a dead letter that nobody has decided about. */
export const openStatuses = ["parked", "skipped", "retrying"]
/** How many are found by a dry run at most, how many are sent together, and of how many the outcome is asked for together. */
const most = { found: 100_000, together: 500, asked: 5_000 }
/** How many the command takes unless it is given a limit. */
const usual = 1_000

/** The filter of a group, which means exactly its dead letters: what could not process them, and the error. */
export const filterOf = ({ build, error, failed_in: where, kind, projection }) => {
  const [, subscription] = /^subscription (.+)$/.exec(where) ?? []
  const [, target] = /^relay to (.+)$/.exec(where) ?? []
  const [, bridge, rule] = /^bridge ([^/]+)\/(.+)$/.exec(where) ?? []
  return Object.fromEntries(
    Object.entries({ kind, projection, build, subscription, target, bridge, rule, error }).filter(
      ([, one]) => one !== undefined && one !== null
    )
  )
}
/** A filter of the address as the body of a decision, which is about open dead letters only. */
export const bodyOf = ({ after: _, build, status, ...filter }) => {
  const wanted = status?.split(",").filter((one) => openStatuses.includes(one)) ?? openStatuses
  const own = {
    ...filter,
    ...(build !== undefined && { build: Number(build) }),
    ...(wanted.length < openStatuses.length && { status: wanted.join(",") })
  }
  return Object.keys(own).length === 0 ? { all: true } : own
}
/** A filter as options of the command. */
export const flagsOf = (filter) =>
  Object.entries(filter)
    .map(([name, value]) => `--${name} ${shellWord(String(value))}`)
    .join(" ")
/** The command that decides about what a body selects. `count`: how many that are. */
export const commandOf = (verb, { all, ids, limit: _, ...filter }, count = 0) =>
  [
    "npx millrace dlq",
    verb,
    ids?.map((id) => shellWord(String(id))).join(" "),
    all ? "--all" : "",
    flagsOf(filter),
    count > usual && ids === undefined ? `--limit ${Math.min(count, most.found)}` : ""
  ]
    .filter(Boolean)
    .join(" ")

/** How many of those that a body selects are being retried, which no discard takes. */
const countRetrying = async ({ all: _, ids, status = openStatuses.join(","), ...filter }, found) => {
  if (ids !== undefined) return ids.length - found
  if (!status.split(",").includes("retrying")) return 0
  const { groups } = await get(withQuery(`${base}/errors`, { ...filter, status: "retrying" }))
  return groups.reduce((total, { count }) => total + count, 0)
}
/** What a decision about them would do: `{ count, ids, behind, more }`, and of a discard how many are left out because they are being `retrying`. */
export const find = async (verb, body) => {
  const path = `${base}/${verb}?dryRun=true`
  const found = (await send("POST", path, { body: { ...body, limit: most.found } })).body
  return verb === "discard" ? { ...found, retrying: await countRetrying(body, found.count) } : found
}

const sum = (
  total,
  {
    behind = 0,
    discarded = 0,
    failed = [],
    failed_again: again = 0,
    failures = [],
    late = 0,
    not_run: notRun = [],
    processed = 0,
    refused = [],
    retried = 0
  }
) => ({
  sent: total.sent,
  others: total.others,
  decided: total.decided + retried + discarded,
  processed: total.processed + processed,
  behind: total.behind + behind,
  again: total.again + again,
  late: total.late + late,
  notRun: [...new Map([...total.notRun, ...notRun].map((one) => [one.build, one])).values()],
  failed: [...total.failed, ...failed].slice(0, 20),
  refused: [...total.refused, ...refused].slice(0, 20),
  refusals: total.refusals + refused.length,
  failures: [...total.failures, ...failures]
})
const nothing = {
  sent: 0,
  decided: 0,
  processed: 0,
  behind: 0,
  again: 0,
  late: 0,
  notRun: [],
  failed: [],
  refused: [],
  refusals: 0,
  failures: [],
  others: 0
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
/** What became of retried dead letters, and how many of them a process is about to process. */
const outcomeOf = async (total, ids) => {
  let [now, waiting] = [total, 0]
  for (let i = 0; i < ids.length; i += most.asked) {
    const { body } = await send("POST", `${base}/outcome`, { body: { ids: ids.slice(i, i + most.asked) } })
    now = sum(now, body)
    waiting += body.waiting
  }
  return { now, waiting }
}
/** Asks for what was not processed when its part was answered, until a process has processed it, or nobody looks any more: the total with it. */
const follow = async (total, pending, { everyMs, isWatched, onTotal, signal }) => {
  let now = total
  for (let waiting = pending.length; waiting > 0 && !signal.aborted && isWatched();) {
    await sleep(everyMs)
    try {
      ;({ now, waiting } = await outcomeOf(total, pending))
      onTotal(now)
    } catch (error) {
      // a server that is away comes back
      if (error.status !== 0 && error.status !== 429 && error.status !== 503) throw Object.assign(error, { total: now })
    }
  }
  return now
}

/**
 * Retries or discards them in parts; `onPart` gets what was done so far and how many were sent. What was not processed yet when its part was answered is asked
 * for every `everyMs` milliseconds, while `isWatched()`. Rejects with an error that has what was done as `total`.
 */
export const decide = async (verb, ids, { everyMs = 1_000, isWatched = () => true, onPart, signal }) => {
  let total = nothing
  const pending = []
  for (let i = 0; i < ids.length && !signal.aborted; i += most.together) {
    const some = ids.slice(i, i + most.together)
    try {
      const { body } = await send("POST", `${base}/${verb}`, { body: { ids: some, limit: some.length } })
      const next = sum(total, body)
      pending.push(...(body.pending ?? []))
      total = {
        ...next,
        others: total.others + Math.max(0, some.length - (next.decided - total.decided) - (body.refused?.length ?? 0))
      }
    } catch (error) {
      // somebody else has decided about all of these
      if (error.code !== "refused") throw Object.assign(error, { total })
      total = { ...total, others: total.others + some.length }
    }
    total = { ...total, sent: Math.min(ids.length, i + most.together) }
    onPart?.(total, total.sent)
    if (total.failures.length > 0) break
  }
  return follow(total, pending, { everyMs, isWatched, onTotal: (now) => onPart?.(now, now.sent), signal })
}
/** What was done, in one sentence. */
export const doneText = (verb, { again, behind, decided, late, others, processed, refusals }) =>
  verb === "discard"
    ? `${counted(decided, "dead letter")} discarded${others > 0 ? `; ${number(others)} were decided about meanwhile, or are being retried` : ""}.`
    : [
        `${counted(decided, "dead letter")} sent again: ${number(processed)} processed, ${number(again)} failed again`,
        behind > 0 ? `${number(behind)} that waited behind them followed` : "",
        late > 0 ? `${counted(late, "contribution")} came too late for a window` : "",
        refusals > 0 ? `${number(refusals)} are refused as before` : "",
        others > 0 ? `${number(others)} were decided about meanwhile` : "",
        decided > processed + again ? `${number(decided - processed - again)} are not processed yet` : ""
      ]
        .filter(Boolean)
        .join("; ") + "."
