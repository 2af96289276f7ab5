// The default theme, with pictures that are drawn from Mermaid's text in the reader's browser, in the colours of the page.
import DefaultTheme from "vitepress/theme"
import { useData, useRoute } from "vitepress"
import { nextTick, onMounted, watch } from "vue"
// oxlint-disable-next-line import/no-unassigned-import -- a style sheet
import "./style.css"

/** The pictures' colours: those of the page. */
const colours = (isDark: boolean) => {
  const [surface, line, text, background] = isDark
    ? ["#202127", "#98989f", "#dfdfd6", "#1b1b1f"]
    : ["#f6f6f7", "#67676c", "#3c3c43", "#ffffff"]
  return {
    darkMode: isDark,
    background,
    primaryColor: surface,
    secondaryColor: surface,
    tertiaryColor: surface,
    mainBkg: surface,
    clusterBkg: background,
    clusterBorder: line,
    nodeBorder: line,
    primaryBorderColor: line,
    lineColor: line,
    primaryTextColor: text,
    textColor: text,
    nodeTextColor: text,
    titleColor: text,
    edgeLabelBackground: background,
    noteBkgColor: background,
    noteTextColor: text,
    noteBorderColor: line,
    useGradient: false,
    dropShadow: "none"
  }
}
let drawings = 0
const draw = async (isDark: boolean, base: string) => {
  const diagrams = [...document.querySelectorAll<HTMLElement>(".diagram")]
  if (diagrams.length === 0) return
  const { default: mermaid } = await import(/* @vite-ignore */ `${base}mermaid/mermaid.esm.min.mjs`)
  mermaid.initialize({
    startOnLoad: false,
    theme: "base",
    themeVariables: colours(isDark),
    layout: "dagre",
    fontFamily: "inherit",
    securityLevel: "strict"
  })
  for (const diagram of diagrams) {
    const source = diagram.querySelector("pre")
    if (source === null) continue
    try {
      const { svg } = await mermaid.render(`diagram-${++drawings}`, source.textContent)
      diagram.querySelector(".drawing")?.remove()
      diagram.insertAdjacentHTML("beforeend", `<div class="drawing">${svg}</div>`)
      source.hidden = true
      // on a phone a wide picture scrolls within itself instead of becoming too small to read
      const drawn = diagram.querySelector<SVGElement>(".drawing > svg")
      const width = Number.parseFloat(drawn?.style.maxWidth ?? "")
      if (drawn && width > 0) drawn.style.minWidth = `${Math.min(width, 640)}px`
    } catch (error) {
      // the text stays
      source.hidden = false
      diagram.dataset["error"] = String(error)
    }
  }
}

/** A group of the navigation is a button as a whole; its arrow is not another one within it. */
const simplifyNavigation = () => {
  for (const arrow of document.querySelectorAll('.VPSidebarItem > .item[role="button"] > .caret')) {
    arrow.removeAttribute("role")
    arrow.removeAttribute("tabindex")
    arrow.removeAttribute("aria-label")
  }
}

export default {
  extends: DefaultTheme,
  setup() {
    const { isDark, site } = useData()
    const route = useRoute()
    const redraw = () =>
      nextTick(() => {
        simplifyNavigation()
        return draw(isDark.value, site.value.base)
      })
    onMounted(redraw)
    watch([() => route.path, isDark], redraw)
  }
}
