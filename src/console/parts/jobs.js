// Jobs of projections: their progress while they run, and their results.
import { useGet } from "../lib/api.js"
import { counted, duration, number } from "../lib/format.js"
import { html, useEffect } from "../lib/html.js"
import { jobPath } from "../lib/jobs.js"
import { linkTo } from "../lib/router.js"
import { Command, Json, Problem, Table, Tag, Time } from "./common.js"
import { Difference } from "./difference.js"

const progressText = ({
  left,
  per_second: rate,
  processed,
  retrying,
  scanned,
  seconds_left: seconds,
  state,
  step,
  total,
  waits
}) => {
  if (retrying) return `tries again: ${retrying}`
  if (step) return `the step ${step} is done`
  if (scanned !== undefined) return `${counted(scanned, "record")} of ${number(total)} looked through`
  if (processed === undefined) return "under way"
  if (state === "paused") return `paused, with ${counted(left, "record")} to go`
  return `${counted(processed, "record")} replayed, ${number(left)} to go, ${number(rate)} a second${seconds === null ? "" : `, about ${duration(seconds * 1_000)} left`}${waits === null ? "" : `; waits: ${waits}`}`
}
const partOf = ({ left, processed, scanned, total }) =>
  scanned !== undefined
    ? scanned / Math.max(total, 1)
    : processed === undefined
      ? undefined
      : processed + left === 0
        ? 1
        : processed / (processed + left)
/** How far a job is. */
export const Progress = ({ of }) => {
  const part = partOf(of ?? {})
  return html`<p role="status">
    ${part === undefined ? "" : html`<progress max="1" value=${part} aria-label="Progress"></progress> `}${progressText(of ?? {})}
  </p>`
}

const planText = (plan) =>
  `${plan.continues ? `Goes on with build ${plan.build}` : `Build ${plan.build} is made${plan.copies ? " as a copy" : ""}`}, of version ${plan.version}, ` +
  `beside build ${plan.live.build}, which stays live: ${counted(plan.events, "event")} ${plan.events === 1 ? "is" : "are"} replayed, ` +
  `in about ${duration(plan.seconds * 1_000)} (${number(plan.events_per_second)} a second, ${plan.rate_from}).`
/** A plan of a rebuild. */
export const Plan = ({ plan }) =>
  html`<p>${planText(plan)}</p>
    ${plan.keys && html`<p>${counted(plan.keys.found, "key")} of ${number(plan.keys.given)} have events; ${number(plan.keys.unknown)} are unknown and stay as they are.</p>`}
    <ul>
      ${plan.topics.map(({ events, partitions, topic }) => html`<li key=${topic}>${topic}: ${counted(events, "event")} in ${counted(partitions, "partition")}</li>`)}
      ${plan.muted.length > 0 && html`<li>Nothing is published meanwhile to ${plan.muted.join(", ")}</li>`}
      ${plan.not_reproduced.map((text) => html`<li key=${text}>Differs: ${text}</li>`)}
    </ul>`

/** What a promotion did, or would do. */
export const Promoted = ({ result }) =>
  html`${
      result.to !== undefined &&
      html`<p>
        ${
          (result.state === "ready"
            ? `Build ${result.to} could replace build ${result.from}; nothing was changed.`
            : `Build ${result.to} is live, in place of build ${result.from}.`) +
          ` The projection paused for ${number(result.pauseMs)} ms.`
        }
      </p>`
    }
    ${result.corrections && html`<p>${counted(result.corrections.published ?? 0, "correction")} published, of ${counted(result.corrections.rows ?? 0, "row")} that differ.</p>`}
    ${result.gate === "open" && html`<p class="note-box">Transactions that began before may still read the old build.</p>`}
    <ul>
      ${(result.notReproduced ?? []).map((text) => html`<li key=${text}>Differs: ${text}</li>`)}
      ${(result.stale ?? []).map((name) => html`<li key=${name}>The materialized view ${name} shows the old rows until it is refreshed</li>`)}
      ${(result.next ?? []).map((text) => html`<li key=${text}>${text}</li>`)}
    </ul>`

const Result = ({ job: { kind, result } }) => {
  if (kind === "diff") return html`<${Difference} found=${result} />`
  if (kind === "plan") return html`<${Plan} plan=${result} />`
  if (kind === "promote") return html`<${Promoted} result=${result} />`
  if (kind === "rebuild")
    return html`<p>
      ${`Build ${result.build} is where build ${result.live} is: ${counted(result.events, "event")} in ${duration(result.seconds * 1_000)}, ${number(result.events_per_second)} a second.`}
    </p>`
  return html`<${Json} value=${result} />`
}
const states = { running: "warn", done: "good", failed: "bad" }

/** A job with its progress, and its result when it has ended. `onEnd`: is called once it has, as the builds and the list of jobs have changed. */
export const Job = ({ id, onEnd }) => {
  const first = useGet(jobPath(id), { every: 1_000, until: (job) => job.state !== "running" })
  const { data: job, error } = first
  const hasEnded = job !== undefined && job.state !== "running"
  useEffect(() => {
    if (hasEnded) onEnd?.()
  }, [hasEnded])
  if (job === undefined)
    return error ? html`<${Problem} error=${error} />` : html`<p class="quiet" role="status">Loading…</p>`
  return html`<div class="row">
      <strong>${job.kind}</strong> <${Tag} kind=${states[job.state]}>${job.state}<//>
      <span class="quiet"
        >by ${job.by}, <${Time} at=${job.started_at} />${job.ended_at && html` to <${Time} at=${job.ended_at} />`}</span
      >
    </div>
    ${job.state === "running" && html`<${Progress} of=${job.progress} />`}
    ${job.error && html`<${Problem} error=${{ code: job.error.code, message: job.error.message, advice: job.error.try }} />`}
    ${job.state === "done" && html`<${Result} job=${job} />`}
    <${Command} text=${`npx ${job.command}`} />`
}

/** The jobs of a projection that this process knows, the newest first. */
export const JobList = ({ chosen, jobs, name }) =>
  html`<details open=${chosen !== undefined}>
    <summary>${counted(jobs.length, "job")} of this process</summary>
    <${Table}
      caption=${`Jobs of ${name}`}
      rows=${jobs}
      keyOf=${({ id }) => id}
      columns=${[
        {
          name: "kind",
          cell: ({ id, kind }) =>
            html`<a href=${linkTo(["versions", name], { job: id })} aria-current=${id === chosen ? "true" : undefined}
              >${kind}</a
            >`
        },
        { name: "state", cell: ({ state }) => html`<${Tag} kind=${states[state]}>${state}<//>` },
        { name: "by" },
        { name: "started_at", label: "started", cell: ({ started_at: at }) => html`<${Time} at=${at} />` },
        { name: "command", cell: ({ command }) => html`<code>${command}</code>` }
      ]}
    />
  </details>`
