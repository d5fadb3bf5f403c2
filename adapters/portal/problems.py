"""What the portal says when it cannot do what was asked: what happened, and what to do next."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One page of this kind, Japanese and English."""

    title_ja: str
    title_en: str
    text_ja: str
    text_en: str
    next_ja: str
    next_en: str


LINK = Problem(
    "このリンクは使えません",
    "This link cannot be used",
    "ログインのリンクは、発行から15分以内に1回だけ使えます。すでに使われたか、時間が過ぎたか、リンクの一部が欠けています。",
    "A login link works once, within 15 minutes. It was used already, is too old, or part of it is missing.",
    "リンクを発行した窓口で、新しいリンクを受け取ってください。",
    "Ask the office that issued the link for a new one.",
)
LOGIN = Problem(
    "ログインが必要です",
    "Please log in",
    "記録は、ご本人がログインしたときだけ表示します。15分間操作がないと、自動でログアウトします。",
    "Records are shown only to the person, after login. After 15 minutes without use you are logged out.",
    "窓口で受け取ったログインのリンクを開いてください。リンクをもう使ったときは、窓口で新しいリンクを受け取ってください。",
    "Open the login link that you received at the office. If it was used before, ask for a new one.",
)
FOREIGN = Problem(
    "この操作は受け付けられません",
    "This request was not accepted",
    "この画面のボタンから送られた操作であると確かめられませんでした。",
    "It could not be confirmed that the request came from a button on this page.",
    "窓口で受け取ったリンクをもう一度開き、画面のボタンを押してください。それでも続くときは、ブラウザーを新しい版にしてください。",
    "Open your link again and press the button on the page. If this goes on, update your browser.",
)
UNREADABLE = Problem(
    "送られた内容を読み取れません",
    "The request could not be read",
    "送られた内容が、この画面の決まった形ではありません。",
    "What was sent does not have the form that this page expects.",
    "窓口で受け取ったリンクをもう一度開き、画面のボタンを押してください。",
    "Open your link again and press the button on the page.",
)
NOT_FOUND = Problem(
    "ページが見つかりません",
    "Page not found",
    "アドレスが違うか、あなたの記録またはお知らせではありません。",
    "The address is wrong, or it is not a record or notice of yours.",
    "記録の一覧に戻るか、窓口で受け取ったログインのリンクを開いてください。",
    "Go back to the list of records, or open the login link that you received at the office.",
)
FAILED = Problem(
    "ただいま表示できません",
    "This cannot be shown right now",
    "こちらのシステムで問題が起きました。記録は失われていません。",
    "Something went wrong on our side. No record has been lost.",
    "しばらくしてから、もう一度お試しください。続くときは、リンクを発行した窓口にお知らせください。",
    "Please try again later. If this goes on, tell the office that issued the link.",
)
LOGGED_OUT = Problem(
    "ログアウトしました",
    "You are logged out",
    "この画面では、もう記録を表示できません。証明をダウンロードしたときは、そのファイルがこの端末に残っています。",
    "Records can no longer be shown here. Any proof that you downloaded is still on this device.",
    "もう一度見るときは、窓口で新しいリンクを受け取ってください。",
    "To look again, ask the office for a new link.",
)
