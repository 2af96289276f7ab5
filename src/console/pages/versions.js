// Versions: the builds of each projection; rebuild with progress, diff with samples, promote, roll back and retire.
import { send, useGet } from "../lib/api.js"
import { counted, number } from "../lib/format.js"
import { html, useState } from "../lib/html.js"
import { runJob } from "../lib/jobs.js"
import { linkTo } from "../lib/router.js"
import { Action, Command, Empty, Json, Loaded, Problem, Table, Tag } from "../parts/common.js"

const base = "/v1/operations/projections"
const pathOf = (name, what) => `${base}/${encodeURIComponent(name)}/${what}`
const roles = { live: "good", candidate: "warn", previous: "quiet", investigation: "quiet", follower: "quiet" }

/** A difference between two builds, by table. */
const Difference = ({ found }) =>
  html`<p>
      ${
        found.equal
          ? html`<${Tag} kind="good">equal<//> Build ${found.candidate} has the same rows as build ${found.live}.`
          : html`<${Tag} kind="warn">different<//> Build ${found.candidate} differs from build ${found.live}.`
      }
    </p>
    <${Table}
      caption="Differences by table"
      rows=${found.tables}
      keyOf=${({ name }) => name}
      columns=${[
        { name: "name", label: "table" },
        ...["missing", "extra", "changed", "rounding"].map((name) => ({
          name,
          numeric: true,
          cell: (row) => number(row[name])
        }))
      ]}
    />
    ${found.tables
      .filter(({ samples }) => samples?.length > 0)
      .map(
        ({ name, samples }) =>
          html`<h3>${name}</h3>
            <${Json} value=${samples} />`
      )}`

const Diff = ({ name }) => {
  const [state, setState] = useState({})
  const run = async () => {
    setState({ isRunning: true })
    try {
      setState({ found: await runJob(pathOf(name, "diff"), {}) })
    } catch (error) {
      setState({ error })
    }
  }
  return html`<button type="button" disabled=${state.isRunning} onClick=${run}>
      ${state.isRunning ? "Comparing…" : "Compare with the live build"}
    </button>
    <${Problem} error=${state.error} />
    ${state.found && html`<${Difference} found=${state.found} />`}
    <${Command} text=${`npx millrace diff ${name}`} />`
}

const progressText = ({ left, per_second: rate, processed, seconds_left: seconds, state, waits }) =>
  state === "paused"
    ? `paused, with ${counted(left, "record")} to go`
    : `${counted(processed, "record")} replayed, ${number(left)} to go, ${number(rate)} a second${seconds === null ? "" : `, about ${number(seconds)} s left`}${waits === null ? "" : `; waits: ${waits}`}`
const Job = ({ id }) => {
  const found = useGet(`/v1/operations/jobs/${encodeURIComponent(id)}`, { every: 1_000 })
  const { left, processed } = found.data?.progress ?? {}
  if (processed === undefined) return html`<p class="quiet" role="status">A job is under way.</p>`
  return html`<p role="status">
    <progress
      max="1"
      value=${processed + left === 0 ? 1 : processed / (processed + left)}
      aria-label="Rebuild"
    ></progress>
    ${progressText(found.data.progress)}
  </p>`
}

const planText = (plan) =>
  [
    `Build ${plan.build} is made beside build ${plan.live.build}, which stays live.`,
    `${counted(plan.events, "event")} are replayed, in about ${number(Math.ceil(plan.seconds))} s.`,
    ...(plan.not_reproduced ?? []).map((one) => `Differs: ${one}.`)
  ].join("\n")
const Actions = ({ found, reload }) => {
  const { builds, job: running, name } = found
  const has = (role) => builds.some((one) => one.role === role)
  const rebuilding = builds.find(({ rebuild }) => rebuild !== null && ["running", "paused"].includes(rebuild.state))
  const simple = (what, text) => async () => {
    await send("POST", pathOf(name, what), { body: {} })
    return text
  }
  return html`<div class="row">
    ${
      rebuilding === undefined &&
      html`<${Action}
        label="Rebuild"
        disabled=${running !== null}
        describe="Replays the log into the next build, beside the live one. Readers notice nothing."
        command=${`npx millrace rebuild ${name}`}
        plan=${async () => planText(await runJob(`${pathOf(name, "rebuild")}?dryRun=true`, {}))}
        act=${async () => {
          const { body } = await send("POST", pathOf(name, "rebuild"), { body: {} })
          return body.state === "running"
            ? "It runs; its progress is on the page."
            : "The build is where the live build is."
        }}
        onDone=${reload}
      />`
    }
    ${
      rebuilding?.rebuild.state === "running" &&
      html`<${Action}
        label="Pause"
        describe="Its processes stop between two batches."
        command=${`npx millrace rebuild ${name} --pause`}
        act=${simple("rebuild/pause", "Paused.")}
        onDone=${reload}
      />`
    }
    ${
      rebuilding?.rebuild.state === "paused" &&
      html`<${Action}
        label="Go on"
        describe="The rebuild goes on where it was."
        command=${`npx millrace rebuild ${name} --resume`}
        act=${simple("rebuild/resume", "It goes on.")}
        onDone=${reload}
      />`
    }
    ${
      (rebuilding !== undefined || has("candidate")) &&
      html`<${Action}
        label="Cancel"
        danger
        describe="The build is deleted, with its tables. The live one stays as it is."
        command=${`npx millrace rebuild ${name} --cancel`}
        act=${simple("rebuild/cancel", "The build was deleted.")}
        onDone=${reload}
      />`
    }
    <${Switches} has=${has} name=${name} reload=${reload} />
  </div>`
}
/** What makes another build the live one. */
const Switches = ({ has, name, reload }) =>
  html`${
    has("candidate") &&
    html`<${Action}
      label="Promote"
      describe="The candidate takes over in one transaction. It can be rolled back while the code of the previous version runs."
      command=${`npx millrace promote ${name}`}
      act=${async () => {
        const result = await runJob(pathOf(name, "promote"), {})
        return `Build ${result.to} is live.`
      }}
      onDone=${reload}
    />`
  }
  ${
    has("previous") &&
    html`<${Action}
      label="Roll back"
      danger
      describe="The previous build is live again. What the newer one has published stays published."
      command=${`npx millrace promote ${name} --rollback`}
      act=${async () => {
        await runJob(pathOf(name, "promote"), { rollback: true })
        return "The previous build is live again."
      }}
      onDone=${reload}
    />`
  }`
const Retire = ({ build, name, reload }) =>
  html`<${Action}
    label="Retire"
    danger
    describe=${`Build ${build} stops, and its tables are kept until they are dropped. A rollback to it is not possible any more.`}
    command=${`npx millrace retire ${name} ${build}`}
    act=${async () => {
      await send("POST", pathOf(name, "retire"), { body: { build } })
      return `Build ${build} is retired.`
    }}
    onDone=${reload}
  />`

const One = ({ found, reload }) => {
  const { builds, job: running, name } = found
  return html`<section class="card">
    <h2><a href=${linkTo(["versions", name])}>${name}</a></h2>
    <${Table}
      caption=${`Builds of ${name}`}
      rows=${builds}
      keyOf=${({ build }) => build}
      columns=${[
        { name: "build", numeric: true },
        { name: "version", numeric: true },
        {
          name: "role",
          cell: ({ inline, role }) =>
            html`<${Tag} kind=${roles[role]}>${role}<//>${inline && html` <${Tag}>inline<//>`}`
        },
        {
          name: "left",
          label: "records to go",
          numeric: true,
          cell: ({ left, role }) => (role === "live" ? "–" : number(left))
        },
        { name: "rebuild", cell: ({ rebuild }) => (rebuild === null ? "" : rebuild.state) },
        { name: "schema", label: "schema in SQL", cell: ({ schema }) => html`<code>${schema}</code>` },
        {
          name: "more",
          label: html`<span class="sr">actions</span>`,
          cell: ({ build, role }) =>
            role === "previous" ? html`<${Retire} name=${name} build=${build} reload=${reload} />` : ""
        }
      ]}
    />
    ${running !== null && html`<${Job} id=${running} />`}
    <${Actions} found=${found} reload=${reload} />
    ${builds.some(({ role }) => role === "candidate") && html`<${Diff} name=${name} />`}
  </section>`
}

export default ({ path: [name] }) => {
  const list = useGet(base, { every: 3_000 })
  return html`<header class="head">
      <h1>${name === undefined ? "Versions" : html`<a href=${linkTo("versions")}>Versions</a> / ${name}`}</h1>
    </header>
    ${name === undefined && html`<p class="lead">A projection is changed by a new build beside the live one: it replays the log, is compared row by row, and takes over in one transaction.</p>`}
    <${Loaded} of=${list}>
      ${({ projections }) => {
        const shown = projections.filter((one) => name === undefined || one.name === name)
        return shown.length === 0
          ? html`<${Empty} title="There is no such projection"><a href=${linkTo("versions")}>All projections</a><//>`
          : shown.map((one) => html`<${One} key=${one.name} found=${one} reload=${list.reload} />`)
      }}
    <//>`
}
