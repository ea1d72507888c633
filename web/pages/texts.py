"""Every English text of the pages, in one place."""


class T:
    """The texts, by what they are for. Those with braces are formatted with the names in them."""

    # everywhere
    site = "vmmr"
    identify = "Identify a car"
    gallery = "Gallery"
    enrol = "Add a car"
    sign_in = "Sign in"
    sign_out = "Sign out"
    pages = "Pages"
    skip = "Skip to the content"
    about = "Make, model and year of a car from a photo, by the photos that look most like it."
    # asking
    ask_title = "Which car is this?"
    ask_photo = "Photos of the car"
    ask_photo_hint = "JPEG, PNG, WebP, BMP, GIF or, where this server reads them, HEIC and AVIF, up to {megabytes} MB. Several photos are taken to be of one car."
    ask_drop = "Drop a photo anywhere on this page, or paste one."
    ask_url = "Or the address of a photo"
    ask_url_hint = "It must begin with http:// or https://, and be open to everyone."
    ask_send = "Identify"
    ask_camera = "Take a photo"
    camera_title = "Take a photo of the car"
    camera_shoot = "Take the photo"
    camera_close = "Close the camera"
    camera_refused = "The camera can't be used: {reason}"
    looking = "Looking at it…"
    too_large = "{name} has {megabytes} MB; at most {most} MB are taken."
    too_many = "At most {most} photos are taken at once."
    # the answer
    unknown = "Unknown car"
    unknown_why = "The gallery has no such car, as far as it can tell. What it has that is nearest is shown below; it is most likely wrong."
    nearest = "What is nearest"
    unsure = "Perhaps {car}"
    no_car = "No car found"
    no_car_why = (
        "No car was found in the photo, so the nearest photos below mean little. If there is one, draw a box around it."
    )
    nothing = "Nothing to compare with"
    nothing_why = "The gallery has no photo to compare with."
    not_calibrated = (
        "The gallery is too small to say how sure this is: the bars are shares of the vote, no probabilities."
    )
    partial = "Only {answered} of {total} parts of the gallery were searched."
    make = "Make"
    model = "Model"
    years = "Year"
    no_year = "no year in the label"
    no_part = "not in the label"
    cars_found = "Cars in this photo"
    car = "Car {n}"
    photo_of = "The photo that was sent"
    photo_n = "Photo {n}"
    neighbours = "The photos that look most like it"
    neighbours_hint = "They are the evidence: each votes for its label. Choose two to compare them."
    similarity = "Similarity"
    share = "Share of its label in the vote"
    choose = "Compare"
    compare = "Compare the chosen two"
    compare_title = "Side by side"
    compare_wants_two = "Choose two photos to compare."
    back_to_answer = "Back to the answer"
    alternatives = "Other candidates"
    timings = "How long it took"
    time_detect = "Finding cars"
    time_embed = "Embedding"
    time_decode = "Decoding"
    time_search = "Searching and voting"
    time_all = "Both services, with the network between"
    link = "A link to this answer"
    link_hint = "It works until this server needs the room, or is started anew. Whoever has the link can see the photo."
    copy = "Copy the link"
    copied = "Copied."
    box = "Look at another part"
    box_hint = "Draw a box on the photo, or give its edges in percent."
    box_left = "Left"
    box_top = "Top"
    box_right = "Right"
    box_bottom = "Bottom"
    box_send = "Identify this part"
    again = "Identify another car"
    # the gallery
    gallery_title = "The cars of the gallery"
    gallery_search = "Search labels"
    gallery_count = "{labels}, {photos}"
    gallery_none = "No label has these words in it."
    gallery_cut = "The first {most} are shown: search for others."
    label_more = "Show more"
    label_none = "The gallery has no photo with this label."
    item_title = "What looks like this one"
    item_label = "Label"
    item_id = "Id"
    item_uri = "Where it is"
    item_batch = "Added in batch"
    item_no_photo = "The photo isn't at hand, so what looks like it can't be found."
    item_similar = "The most similar photos"
    remove_choose = "Choose this photo"
    remove_ask = "Remove the chosen photos…"
    remove_title = "Remove from the gallery?"
    remove_none = "No photo was chosen."
    remove_many = "At most {most} photos can be removed at once, and {n} were chosen."
    remove_back = "{n} of {photos} can be brought back afterwards: those that this server has at hand."
    remove_yes = "Remove for good"
    remove_no = "Keep them"
    removed = "Removed {photos}."
    removed_undo = "Undo: bring {n} back"
    brought_back = "Brought back {photos}."
    # signing in
    word = "The token of those who may change the gallery"
    signing_in = "Sign in"
    writes_off = "The gallery can't be changed here: the program was started without --token-file."
    # adding
    enrol_title = "Add a car to the gallery"
    enrol_label = "Label"
    enrol_label_hint = "make_model_year, for example honda_pilot_2011. Five photos or more make a new car known."
    enrol_photos = "Photos of it"
    enrol_check = "Check the photos"
    enrol_nothing_yet = "Nothing is added before you have seen what was found."
    enrol_progress = "Checked {done} of {all} photos"
    enrol_failed = "The photos could not be checked: {reason}"
    review_title = "Add these photos?"
    review_label_new = "This label is new to the gallery."
    review_label_known = "The gallery has {photos} with this label."
    review_label_near = "The gallery has labels that are nearly the same. Is it one of them?"
    review_label_year = "The label doesn't end with a year, so its cars will have none."
    review_keep = "Add this photo"
    review_duplicate = "Nearly the same photo is in the gallery: {item} ({label}, similarity {score})"
    review_twin = "Nearly the same as photo {n} of these"
    review_no_car = "No car was found in it"
    review_other = "Looks most like {label}, similarity {score}"
    review_bad = "Can't be used: {why}"
    review_send = "Add to the gallery"
    review_none = "No photo was chosen, so nothing was added."
    added_title = "Added"
    added = "Added {photos} of {label}; already there: {unchanged}. The next question knows them."
    added_batch = "Batch"
    added_undo = "Undo: remove this batch"
    added_more = "Add another car"
    added_undone = "Removed {photos} of batch {batch}."
    # refusals
    refused_title = "That did not work"
    refused_id = "Request {id}"
    refused_reason = "Reason {reason}"


def n_photos(n: int) -> str:
    """Return a number of photos in words."""
    return "1 photo" if n == 1 else f"{n} photos"


def n_labels(n: int) -> str:
    """Return a number of labels in words."""
    return "1 label" if n == 1 else f"{n} labels"


REFUSALS = {
    "UNAVAILABLE": "A service that is needed for this can't be reached. Try again in a moment.",
    "DEADLINE_EXCEEDED": "It took too long. The services may be busy: try again in a moment.",
    "QUEUE_FULL": "The services are busy. Try again in a moment.",
    "BUSY": "Too many photos are being looked at. Try again in a moment.",
    "TOO_MANY_CALLS": "Too many photos came from your address. Try again in a moment.",
    "SHUTTING_DOWN": "A service is being restarted. Try again in a moment.",
    "NOT_READY": "A service is starting. Try again in a moment.",
    "INVALID_IMAGE": "The photo can't be used.",
    "UPLOAD_TOO_LARGE": "That is too large.",
    "URL_NOT_FETCHED": "The photo can't be fetched from that address.",
    "TOKEN_WANTED": "That needs the token.",
    "MODEL_MISMATCH": "The gallery was made with another model than the one that is served. Tell whoever runs this server.",
    "NOT_FOUND": "There is nothing here.",
    "ITEM_NOT_FOUND": "The gallery has no such photo.",
}
"""What a refusal is called on a page, by its reason. Others are told as they are."""
