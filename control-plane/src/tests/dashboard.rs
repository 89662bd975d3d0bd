//! The dashboard in a real browser, over the real API, with a small shop connected.
//!
//! `ANYAM_SCREENSHOTS=<dir>` also writes what the browser shows.

use std::path::PathBuf;

use serde::Deserialize;

use super::bench::{Agent, Bench, Delta, eventually};
use super::browser::Page;
use super::shop::{connect, shop};

/// Opens a page of the dashboard as its reader does, by the link with the token.
async fn visit(page: &mut Page, bench: &Bench, name: &str, size: (u32, u32)) {
    let token = std::fs::read_to_string(&bench.running.token_file).unwrap();
    let (address, token) = (bench.running.api, token.trim());
    page.open(&format!("http://{address}/{name}#token={token}"), size)
        .await;
}

/// A shop whose proxies have reported, and a browser.
async fn busy_shop() -> (Bench, Vec<(Delta, Agent)>, Page) {
    let bench = shop().await;
    let proxies = connect(&bench).await;
    eventually(async || {
        let (_, edges) = bench.get("/api/v1/edges").await;
        (edges["edges"].as_array()?.len() == 7).then_some(())
    })
    .await;
    (bench, proxies, Page::new().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_the_shop() {
    let empty = shop().await;
    let mut page = Page::new().await;
    visit(&mut page, &empty, "", WIDE).await;
    page.shows(&["No proxy is connected yet"]).await;
    page.close().await;
    let (bench, _proxies, mut page) = busy_shop().await;
    visit(&mut page, &bench, "", WIDE).await;
    page.shows(&[
        "shop/web-0",
        "12 denied",
        "aria-label=\"Service graph\"",
        "mutual TLS",
        "UC × 3",
        "8 of 9",
    ])
    .await;
    if let Some(directory) = screenshots() {
        for (name, text) in [
            ("proxies", "must be more than zero"),
            ("routes", "/admin"),
            ("certificates", "spiffe://"),
            ("problems", "routes.yaml"),
            ("objects", "intruder-0"),
        ] {
            visit(&mut page, &bench, &format!("?page={name}"), WIDE).await;
            page.shows(&[text]).await;
            page.screenshot(&directory.join(format!("{name}.png")))
                .await;
        }
        page.prefer_dark().await;
        visit(&mut page, &bench, "", WIDE).await;
        page.shows(&["12 denied"]).await;
        page.screenshot(&directory.join("map-dark.png")).await;
    }
    page.close().await;
}

const WIDE: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (390, 844);

fn screenshots() -> Option<PathBuf> {
    std::env::var_os("ANYAM_SCREENSHOTS").map(PathBuf::from)
}

async fn shot(page: &mut Page, name: &str) {
    if let Some(directory) = screenshots() {
        page.screenshot(&directory.join(name)).await;
    }
}

/// The graph as it is laid out in the window, in pixels. Read in one call, because the page is
/// redrawn every other second.
#[derive(Debug, Deserialize)]
struct Layout {
    graph: Rect,
    /// By their text, in the order of the page.
    nodes: Vec<Rect>,
    /// The labels of edges; a click on one selects the edge.
    tags: Vec<Rect>,
    buttons: Vec<Rect>,
    /// Width of the window, and the width at which the page would not scroll sideways.
    window: f64,
    page: f64,
    /// How far the page is scrolled.
    scrolled: f64,
    /// An edge is chosen.
    chosen: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Rect {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl Rect {
    fn middle(self) -> (f64, f64) {
        (self.x + self.width / 2.0, self.y + self.height / 2.0)
    }

    fn holds(self, other: Self) -> bool {
        const ROUNDING: f64 = 0.5;
        other.x >= self.x - ROUNDING
            && other.y >= self.y - ROUNDING
            && other.x + other.width <= self.x + self.width + ROUNDING
            && other.y + other.height <= self.y + self.height + ROUNDING
    }
}

impl Layout {
    /// A visible label of an edge that stays visible when the graph moves a little.
    fn tag_inside(&self) -> Rect {
        let Rect {
            x,
            y,
            width,
            height,
        } = self.graph;
        let inner = Rect {
            x: x + 50.0,
            y: y + 50.0,
            width: width - 100.0,
            height: height - 100.0,
        };
        let at = |tag: &&Rect| {
            let (x, y) = tag.middle();
            inner.holds(Rect {
                x,
                y,
                width: 0.0,
                height: 0.0,
            })
        };
        let tag = self.tags.iter().find(at);
        *tag.unwrap_or_else(|| panic!("no label is in sight: {self:?}"))
    }
}

async fn layout(page: &mut Page) -> Layout {
    let layout = page
        .evaluate(
            "(() => {
                const rect = (one) => one.getBoundingClientRect().toJSON();
                const all = (what) => [...document.querySelectorAll(what)];
                const nodes = all('#map .node');
                return {
                    graph: rect(document.querySelector('#map svg')),
                    nodes: nodes.sort((a, b) => a.textContent < b.textContent ? -1 : 1).map(rect),
                    buttons: all('#map .zoom button').map(rect),
                    window: innerWidth,
                    page: document.documentElement.scrollWidth,
                    scrolled: scrollY,
                    tags: all('#map .tag').map(rect),
                    chosen: document.querySelector('.edge.on') !== null,
                };
            })()",
        )
        .await;
    serde_json::from_value(layout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_graph_fits_a_desktop_and_a_phone() {
    let (bench, _proxies, mut page) = busy_shop().await;
    for (size, name) in [(WIDE, "map-1280.png"), (PHONE, "map-390.png")] {
        visit(&mut page, &bench, "", size).await;
        page.shows(&["12 denied"]).await;
        let seen = layout(&mut page).await;
        shot(&mut page, name).await;
        assert_eq!(seen.window, f64::from(size.0));
        assert!(
            seen.page <= seen.window,
            "the page scrolls sideways: {seen:?}"
        );
        assert!(seen.graph.x >= 0.0 && seen.graph.x + seen.graph.width <= seen.window);
        assert!(seen.graph.width > seen.window / 3.0, "{seen:?}");
        assert!(seen.nodes.len() >= 6, "{seen:?}");
        for node in &seen.nodes {
            assert!(seen.graph.holds(*node), "{node:?} of {seen:?}");
        }
    }
    page.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_graph_is_zoomed_and_moved() {
    let (bench, _proxies, mut page) = busy_shop().await;
    for (size, name) in [(WIDE, "1280"), (PHONE, "390")] {
        visit(&mut page, &bench, "", size).await;
        page.shows(&["12 denied"]).await;
        // Scrolls to just below the header, which stays visible.
        page.evaluate(
            "scrollBy(0, document.querySelector('#map .zoom').getBoundingClientRect().top
                - document.querySelector('header').offsetHeight)",
        )
        .await;
        let whole = layout(&mut page).await;
        let grown = |now: &Layout| now.nodes[0].width / whole.nodes[0].width;
        let [closer, _, fit] = whole.buttons[..] else {
            panic!("{whole:?}");
        };

        // The buttons do not move.
        for times in 1..=3 {
            page.click(closer.middle()).await;
            let now = layout(&mut page).await;
            assert!((grown(&now) - 1.4_f64.powi(times)).abs() < 0.02, "{now:?}");
            let window = now.window;
            assert!(now.page <= window, "the page scrolls sideways: {now:?}");
        }
        shot(&mut page, &format!("zoomed-{name}.png")).await;

        let before = layout(&mut page).await;
        let (x, y) = before.tag_inside().middle();
        page.press((x, y)).await;
        page.drag_to((x + 20.0, y + 10.0)).await;
        page.drag_to((x + 40.0, y + 20.0)).await;
        let moved = layout(&mut page).await;
        page.release((x + 40.0, y + 20.0)).await;
        for (from, to) in before.nodes.iter().zip(&moved.nodes) {
            let (right, down) = (to.x - from.x, to.y - from.y);
            assert!((right - 40.0).abs() < 1.0, "{right}: {before:?} {moved:?}");
            assert!((down - 20.0).abs() < 1.0, "{down}: {before:?} {moved:?}");
        }
        shot(&mut page, &format!("moved-{name}.png")).await;
        let after = layout(&mut page).await;
        assert!(!after.chosen, "the drag chose the edge that it took");
        page.click(after.tag_inside().middle()).await;
        assert!(layout(&mut page).await.chosen, "a click chooses an edge");

        page.click(fit.middle()).await;
        let now = layout(&mut page).await;
        assert!((grown(&now) - 1.0).abs() < 0.01, "{now:?}");

        let middle = now.graph.middle();
        page.wheel(middle, -100.0, true).await;
        let now = layout(&mut page).await;
        assert!((grown(&now) - 0.4_f64.exp()).abs() < 0.02, "{now:?}");
        assert_eq!(
            now.scrolled, whole.scrolled,
            "Ctrl and the wheel scroll nothing"
        );
        page.wheel(middle, 100.0, true).await;
        page.wheel(middle, 100.0, false).await;
        let now = scrolled(&mut page, whole.scrolled).await;
        assert!((grown(&now) - 1.0).abs() < 0.01, "the wheel alone: {now:?}");
    }
    page.close().await;
}

/// The layout once the page has scrolled, which browsers animate.
async fn scrolled(page: &mut Page, before: f64) -> Layout {
    for _ in 0..1_000 {
        let now = layout(page).await;
        if now.scrolled > before {
            return now;
        }
    }
    panic!("the wheel alone scrolls the page");
}
